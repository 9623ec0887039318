"""Fixtures of the checks: the fleet, the host at hand, and trust in its edge."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import testinfra
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.run import PLUGIN


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a check on each host of its module's GROUPS; no GROUPS means every host."""
    fleet = metafunc.config.stash[PLUGIN].fleet
    groups = getattr(metafunc.module, "GROUPS", None)
    hosts = [host for host in fleet.hosts if groups is None or host.groups & set(groups)]
    metafunc.fixturenames.append("target")
    metafunc.parametrize("target", hosts, ids=[host.name for host in hosts], scope="session")


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Fleet:
    """The fleet of the inventory."""
    return request.config.stash[PLUGIN].fleet


@pytest.fixture(scope="session")
def trusted(request: pytest.FixtureRequest) -> str:
    """PEM text of further roots for the edge's certificate."""
    return request.config.stash[PLUGIN].trusted


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest, target: Host) -> Iterator[Connection]:
    """A testinfra connection to the host at hand, kept open between its checks."""
    plugin = request.config.stash[PLUGIN]
    sudo = "?sudo=true" if target.become and target.user != "root" else ""
    control = plugin.ssh_config.parent / target.name
    yield testinfra.get_host(
        f"ssh://{target.name}{sudo}",
        ssh_config=str(plugin.ssh_config),
        controlpersist=30,
        controlpath=str(control),
    )
    end = ["ssh", "-F", str(plugin.ssh_config), "-o", f"ControlPath={control}", "-O", "exit"]
    subprocess.run([*end, target.name], capture_output=True, check=False)


@pytest.fixture
def address(fleet: Fleet, target: Host) -> str:
    """Where the private services of the host at hand listen."""
    return fleet.listen_address(target)
