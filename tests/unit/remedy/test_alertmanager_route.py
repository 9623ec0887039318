"""Alertmanager tells the remediator, and tells people what it told them without it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from rendering import BOOKWORM, Role

URL = "http://127.0.0.1:9120/"
CONFIG = "host/etc/prometheus/rackhand_alertmanager.yml.j2"


def config(url: str) -> str:
    return Role(
        "alertmanager",
        BOOKWORM,
        alertmanager_remediator_url=url,
        alertmanager_remediator_token="t",
        alertmanager_webhook_url="http://pager.example.com/",
    ).render(CONFIG)


def test_without_remediation_nothing_is_about_it() -> None:
    assert "remediator" not in config("")


def test_it_is_told_with_its_token_of_every_alert_for_itself() -> None:
    told = yaml.safe_load(config(URL))
    (receiver,) = [each for each in told["receivers"] if each["name"] == "remediator"]
    (webhook,) = receiver["webhook_configs"]
    assert webhook["url"] == URL
    assert webhook["http_config"]["authorization"]["credentials_file"].endswith("/remediator_token")
    route = told["route"]["routes"][0]
    assert (route["receiver"], route["continue"], route["group_by"]) == (
        "remediator",
        True,
        ["..."],
    )


@pytest.mark.skipif(not shutil.which("amtool"), reason="needs Alertmanager's amtool")
@pytest.mark.parametrize(
    ("url", "labels", "receivers"),
    [
        (URL, "alertname=GpuFellOff severity=critical", "remediator,critical"),
        (URL, "alertname=GpuHot severity=warning", "remediator,warning"),
        (URL, "alertname=RackhandTest test_receiver=webhook", "test_webhook"),
        ("", "alertname=GpuFellOff severity=critical", "critical"),
        ("", "alertname=GpuHot severity=warning", "warning"),
    ],
)
def test_people_are_told_as_before(tmp_path: Path, url: str, labels: str, receivers: str) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(config(url))
    done = subprocess.run(
        ["amtool", "config", "routes", "test", f"--config.file={file}", *labels.split()],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, receivers), done.stderr
