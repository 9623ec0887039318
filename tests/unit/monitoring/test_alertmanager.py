"""Alertmanager's configuration as the role renders it, judged by amtool and by its own router."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import BOOKWORM, Role
from rules import alerts

TEMPLATE = "host/etc/prometheus/rackhand_alertmanager.yml.j2"
UNIT = "host/etc/systemd/system/prometheus-alertmanager.service.d/60-rackhand.conf.j2"
EVERYBODY: dict[str, Any] = {
    "alertmanager_slack_url": "https://hooks.slack.test/secret-slack",
    "alertmanager_slack_channel": "#ops",
    "alertmanager_pagerduty_routing_key": "secret-pagerduty",
    "alertmanager_email_to": ["a@x.test", "b@x.test"],
    "alertmanager_email_from": "rackhand@x.test",
    "alertmanager_email_smarthost": "mail.x.test:587",
    "alertmanager_email_username": "rackhand",
    "alertmanager_email_password": "secret-mail",
    "alertmanager_webhook_url": "https://hook.x.test/alerts",
    "alertmanager_webhook_token": "secret-hook",
}
KINDS = ("slack", "pagerduty", "email", "webhook")


def config(**variables: Any) -> str:
    return Role("alertmanager", BOOKWORM, **variables).render(TEMPLATE)


def amtool(tmp_path: Path, text: str, *words: str) -> str:
    path = tmp_path / "alertmanager.yml"
    path.write_text(text)
    command = ["amtool", *words]
    command += [str(path)] if words[0] == "check-config" else []
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(matcher: str) -> str:
    """The value of a matcher."""
    return matcher.partition("=")[2].lstrip("~").strip('"')


@pytest.mark.parametrize("name", ["nobody", *KINDS, "everybody", "proxied"])
def test_amtool_takes_what_any_choice_of_receivers_gives(name: str, tmp_path: Path) -> None:
    chosen = {k: v for k, v in EVERYBODY.items() if name in k or name in ("everybody", "proxied")}
    if name == "proxied":
        chosen["alertmanager_proxy_url"] = "http://proxy.x.test:3128"
    amtool(tmp_path, config(**chosen), "check-config")


def test_without_a_receiver_nobody_is_told() -> None:
    found = yaml.safe_load(config())["receivers"]
    assert found == [{"name": "critical"}, {"name": "warning"}]


def test_no_secret_stands_in_the_configuration_or_the_unit() -> None:
    role = Role("alertmanager", BOOKWORM, **EVERYBODY)
    for text in (role.render(TEMPLATE), role.render(UNIT)):
        assert "secret-" not in text
    for name in ("slack_url", "pagerduty_routing_key", "email_password", "webhook_token"):
        source = f"/etc/rackhand/credentials/prometheus-alertmanager/{name}"
        assert f"LoadCredential={name}:{source}" in role.render(UNIT)
        path = f"/run/credentials/prometheus-alertmanager.service/{name}"
        assert path in role.render(TEMPLATE)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=ModelDown", "severity=critical"], "critical"),
        (["alertname=GpuHot", "severity=warning"], "warning"),
        (["alertname=RackhandTest", "test_receiver=email", "severity=critical"], "test_email"),
    ],
)
def test_alerts_find_their_receiver(labels: list[str], receiver: str, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    words = ["config", "routes", "test", f"--config.file={path}", *labels]
    assert amtool(tmp_path, config(**EVERYBODY), *words).strip() == receiver


def test_warnings_do_not_wake_people() -> None:
    found = {r["name"]: r for r in yaml.safe_load(config(**EVERYBODY))["receivers"]}
    assert "pagerduty_configs" in found["critical"]
    assert "pagerduty_configs" not in found["warning"]
    assert {"slack_configs", "email_configs", "webhook_configs"} <= set(found["warning"])


def test_inhibition_names_alerts_that_exist_and_inhibits_none_by_itself() -> None:
    names = set(alerts())
    for rule in yaml.safe_load(config())["inhibit_rules"]:
        sides = []
        for matchers in (rule["source_matchers"], rule["target_matchers"]):
            positive = [m for m in matchers if m.startswith(("alertname=", "alertname=~"))]
            chosen = set()
            for matcher in positive:
                chosen |= set(matcher.partition("=")[2].lstrip("~").strip('"').split("|"))
            assert chosen <= names, f"{chosen - names} are no alerts"
            sides.append(chosen)
        source, target = sides
        assert not source & target


def test_what_holds_clients_errors_back_explains_what_it_leaves_of_them_as_well() -> None:
    """Inhibition ends with the cause; the rules know for how long its errors are counted."""
    outages = {*Role("prometheus", BOOKWORM).value("__prometheus_outages"), "NotReady"}
    sources: set[str] = set()
    for rule in yaml.safe_load(config())["inhibit_rules"]:
        if "AppErrorRate" in "".join(rule["target_matchers"]):
            (source,) = rule["source_matchers"]
            sources |= set(source.partition("=")[2].lstrip("~").strip('"').split("|"))
    assert sources == outages


def test_what_holds_restarts_of_units_back_explains_them_after_its_end_as_well() -> None:
    told = {
        (row["alert"], row["unit"], *row["equal"])
        for row in Role("prometheus", BOOKWORM).value("__prometheus_units")
    }
    held = set()
    for rule in yaml.safe_load(config())["inhibit_rules"]:
        if "UnitRestarting" in "".join(rule["target_matchers"]):
            (source,), unit = rule["source_matchers"], rule["target_matchers"][-1]
            held.add((read(source), read(unit), *rule.get("equal", [])))
    assert told == held
