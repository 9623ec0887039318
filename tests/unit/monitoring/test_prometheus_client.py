"""The client against a real Prometheus that watches itself."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import prometheus_server

from ops.errors import InputError, RemoteError
from ops.fleet import load
from ops.monitoring import Prometheus, Service, prometheus
from tests.ports import free_port

CONFIG = """
global: {scrape_interval: 200ms, evaluation_interval: 200ms}
rule_files: [rules.yml]
scrape_configs:
  - job_name: gone
    static_configs: [{targets: ["127.0.0.1:1"], labels: {host: node1}}]
"""
RULES = """
groups:
  - name: test
    rules:
      - {alert: TargetDown, expr: up == 0, for: 1h, labels: {severity: critical}}
      - {alert: Always, expr: vector(3), annotations: {summary: said}}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(CONFIG)
    (folder / "rules.yml").write_text(RULES)
    with prometheus_server(folder / "prometheus.yml") as url:
        service = Service(url, "prometheus.service", "node1")
        found = Prometheus(service)
        end = time.monotonic() + 20
        while len(found.alerts()) < 2 or not found.query("up"):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield found
        service.close()


def test_a_query_tells_samples_with_their_labels(client: Prometheus) -> None:
    (sample,) = client.query("up")
    assert (sample.value, sample.labels["host"], sample.labels["job"]) == (0, "node1", "gone")
    assert abs(sample.time - time.time()) < 60
    (scalar,) = client.query("scalar(vector(NaN))")
    assert scalar.value != scalar.value


def test_a_range_tells_values_over_time(client: Prometheus) -> None:
    now = time.time()
    (series,) = client.query_range("vector(7)", start=now - 2, end=now, step=1)
    assert [value for _, value in series.values] == [7, 7, 7]
    assert client.query_range("absent_metric", start=now - 2, end=now, step=1) == []


def test_alerts_are_told_with_state_and_age(client: Prometheus) -> None:
    alerts = {alert.name: alert for alert in client.alerts()}
    assert {name: alert.state for name, alert in alerts.items()} == {
        "TargetDown": "pending",
        "Always": "firing",
    }
    assert alerts["Always"].annotations == {"summary": "said"}
    assert alerts["Always"].value == 3
    assert alerts["TargetDown"].labels["severity"] == "critical"


def test_targets_say_why_they_are_down(client: Prometheus) -> None:
    (target,) = client.targets()
    assert (target.health, target.labels["job"]) == ("down", "gone")
    assert "refused" in target.error


def test_a_query_that_is_none_is_refused_with_its_place(client: Prometheus) -> None:
    with pytest.raises(InputError) as told:
        client.query("sum(up")
    assert told.value.place == "sum(up"


def test_a_service_that_is_gone_is_named() -> None:
    service = Service(f"http://127.0.0.1:{free_port()}", "prometheus.service", "node9")
    with pytest.raises(RemoteError, match=r"prometheus.service on node9 gives no answer"):
        Prometheus(service).query("up")


def test_a_fleet_without_a_watcher_says_so(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        "all: {hosts: {n1: {ansible_host: 192.0.2.1, domain: a.example.com}}}\n"
    )
    with pytest.raises(InputError, match="nobody watches this fleet"), prometheus(load(tmp_path)):
        pass
