"""What Prometheus scrapes, from the inventory alone, and the file that becomes of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.rackhand.host.plugins.filter.scrape_targets import scrape_targets
from rendering import BOOKWORM, ROOT, Role

JOBS = {
    *("prometheus", "alertmanager", "node", "gpu", "engine"),
    *("agent_app", "postgres", "redis", "nginx", "blackbox"),
}  # and `remediator`, where it is on
EVERYTHING = ["gpu", "agent", "data", "edge", "monitoring"]


def host(
    groups: list[str], *, single: bool = True, gpus: int = 2, remediator_port: int = 0
) -> dict[str, Any]:
    address = "127.0.0.1" if single else "10.0.0.11"
    return {
        "name": "node1",
        "groups": groups,
        "address": address,
        "single": single,
        "models": [{"name": "chat"}, {"name": "embed"}],
        "gpus": gpus,
        "remediator_port": remediator_port,
        "app_ports": [8200, 8201],
        "app_metrics_ports": [8300, 8301],
        "redis": {"cache": f"redis://{address}:6379", "state": f"redis://{address}:6380"},
        "domain": "agent.example.com",
    }


def by_job(targets: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        found.setdefault(target["job"], []).append(target)
    return found


def test_one_host_has_every_job_on_loopback_and_every_target_its_labels() -> None:
    targets = scrape_targets(host(EVERYTHING))
    assert set(by_job(targets)) == JOBS
    assert {target["address"].partition(":")[0] for target in targets} == {"127.0.0.1"}
    assert {target["labels"]["host"] for target in targets} == {"node1"}
    assert all(target["labels"]["instance"] for target in targets)
    named = [(t["job"], t["labels"]["instance"]) for t in targets]
    assert len(named) == len(set(named))


def test_both_slots_of_each_model_are_asked_with_model_and_slot() -> None:
    found = {
        (t["labels"]["model"], t["labels"]["slot"]): t["address"]
        for t in by_job(scrape_targets(host(EVERYTHING)))["engine"]
    }
    assert found == {
        ("chat", "blue"): "127.0.0.1:8100",
        ("chat", "green"): "127.0.0.1:8101",
        ("embed", "blue"): "127.0.0.1:8102",
        ("embed", "green"): "127.0.0.1:8103",
    }


def test_from_another_host_slots_are_asked_through_its_nginx() -> None:
    target = by_job(scrape_targets(host(["gpu"], single=False)))["engine"][1]
    assert target["address"] == "10.0.0.11:8501"
    assert target["labels"]["__metrics_path__"] == "/chat/green/metrics"
    assert target["labels"]["__scheme__"] == "https"


def test_a_host_is_asked_only_for_what_it_has() -> None:
    assert set(by_job(scrape_targets(host(["data"], single=False)))) == {
        "node",
        "postgres",
        "redis",
    }
    assert "gpu" not in by_job(scrape_targets(host(EVERYTHING, gpus=0)))


def test_the_remediator_is_asked_where_it_runs() -> None:
    found = by_job(scrape_targets(host(["monitoring"], single=False, remediator_port=9120)))
    assert [target["address"] for target in found["remediator"]] == ["127.0.0.1:9120"]


def test_the_edge_is_probed_from_the_monitoring_host_by_its_address() -> None:
    for target in by_job(scrape_targets(host(["edge"], single=False)))["blackbox"]:
        assert target["address"] == "127.0.0.1:9115"
        assert target["labels"]["__param_target"].startswith("https://10.0.0.11/")


@pytest.mark.parametrize("inventory", ["example", "fleet"])
def test_promtool_takes_the_file_of_an_inventory(inventory: str, tmp_path: Path) -> None:
    targets = fleet_targets(inventory)
    assert set(by_job(targets)) == JOBS
    role = Role("prometheus", BOOKWORM, prometheus_targets=targets)
    text = role.render("host/etc/prometheus/rackhand.yml.j2")
    path = tmp_path / "rackhand.yml"
    path.write_text(text.replace("/etc/prometheus/rackhand_rules", str(tmp_path / "rules")))
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    document = yaml.safe_load(text)
    assert {job["job_name"] for job in document["scrape_configs"]} == JOBS


def fleet_targets(inventory: str) -> list[dict[str, Any]]:
    """Work them out as a play does, from an inventory and the playbooks' group_vars."""
    program = shutil.which("ansible")
    assert program
    done = subprocess.run(
        [
            *(program, "all", "-i", f"inventories/{inventory}", "--playbook-dir", "playbooks"),
            *(
                "-m",
                "ansible.builtin.debug",
                "-a",
                "var=fleet_scrape_targets",
                "-l",
                "localhost,all[0]",
            ),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout.partition("=> ")[2]
    found: list[dict[str, Any]] = yaml.safe_load(text)["fleet_scrape_targets"]
    return found
