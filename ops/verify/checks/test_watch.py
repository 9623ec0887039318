"""What Prometheus and Alertmanager promise."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host as Connection

from ops.fleet import Fleet
from ops.verify.probes import ask, assert_listens_only_at, assert_unit_runs, http

GROUPS = ("monitoring",)
MOST_BYTES = 10_000_000
PROMETHEUS = "http://127.0.0.1:9090"
ALERTMANAGER = "http://127.0.0.1:9093"


def api(host: Connection, url: str) -> Any:
    status, text = http(host, url, most_bytes=MOST_BYTES)
    assert status == 200, f"{url}: {status} {text[:500]}"
    return json.loads(text)


def test_prometheus_runs_on_loopback_only(host: Connection) -> None:
    assert_unit_runs(host, "prometheus.service")
    assert_listens_only_at(host, 9090, {"127.0.0.1"})


def test_alertmanager_runs_on_loopback_only(host: Connection) -> None:
    assert_unit_runs(host, "prometheus-alertmanager.service")
    assert_listens_only_at(host, 9093, {"127.0.0.1"})


def test_prometheus_took_its_configuration_and_every_rule_is_well(host: Connection) -> None:
    groups = api(host, f"{PROMETHEUS}/api/v1/rules")["data"]["groups"]
    assert {group["name"] for group in groups} >= {"gpu", "engine", "app", "edge", "data", "host"}
    failing = [r["name"] for g in groups for r in g["rules"] if r["health"] == "err"]
    assert failing == []


def test_every_target_but_slots_that_do_not_run_is_up(host: Connection, fleet: Fleet) -> None:
    targets = api(host, f"{PROMETHEUS}/api/v1/targets?state=active")["data"]["activeTargets"]
    assert {t["labels"]["host"] for t in targets} == {known.name for known in fleet.hosts}
    down = [
        f"{t['labels']['job']} {t['labels']['instance']}: {t['lastError']}"
        for t in targets
        if t["health"] == "down" and t["labels"]["job"] != "engine"
    ]
    assert down == []


def test_every_model_has_a_slot_that_is_watched(host: Connection, fleet: Fleet) -> None:
    targets = api(host, f"{PROMETHEUS}/api/v1/targets?state=active")["data"]["activeTargets"]
    for model in {model.name for known in fleet.group("gpu") for model in known.models}:
        assert any(t["health"] == "up" for t in targets if t["labels"].get("model") == model), (
            f"no slot of {model} is up"
        )


def test_prometheus_has_found_alertmanager(host: Connection) -> None:
    found = api(host, f"{PROMETHEUS}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [entry["url"].split("/")[2] for entry in found] == ["127.0.0.1:9093"]


def test_no_secret_of_alertmanager_can_be_read_by_others(host: Connection) -> None:
    folder = "/etc/rackhand/credentials/prometheus-alertmanager"
    if not host.file(folder).exists:
        return
    assert ask(host, "find %s -type f ! -perm 600", folder) == ""
