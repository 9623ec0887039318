"""What Grafana promises on a host that has it."""

from __future__ import annotations

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Host
from ops.verify.probes import assert_access, assert_listens_only_at, assert_unit_runs, http

GROUPS = ("monitoring",)
UNIT = "grafana-server.service"


@pytest.fixture(scope="module", autouse=True)
def _wanted(host: Connection, target: Host) -> None:
    """Pass a host over where it is switched off, or could not be had."""
    if not target.variables.get("grafana_enabled", True):
        pytest.skip("grafana_enabled is false")
    if host.run(f"systemctl cat {UNIT}").rc != 0:
        pytest.skip("Grafana is not installed: its repository was out of reach")


@pytest.fixture
def port(target: Host) -> int:
    """Where it is served."""
    return int(target.variables.get("grafana_port", 3000))


def test_the_unit_runs_and_is_enabled(host: Connection) -> None:
    assert_unit_runs(host, UNIT)


def test_it_listens_on_loopback_only(host: Connection, port: int) -> None:
    assert_listens_only_at(host, port, {"127.0.0.1"})


def test_it_shows_nothing_without_a_password(host: Connection, port: int) -> None:
    status, _ = http(host, f"http://127.0.0.1:{port}/api/search")
    assert status == 401, f"/api/search answers {status} to anybody"


def test_no_secret_of_it_is_readable_to_others(host: Connection) -> None:
    assert_access(host, "/etc/rackhand/credentials/grafana/admin_password", "root", "root", 0o600)
