"""What the agent app promises."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Host
from ops.verify.probes import ask, assert_access, assert_listens_only_at, assert_unit_runs, http

GROUPS = ("agent",)


@pytest.fixture
def numbers(target: Host) -> range:
    """The instances of the host at hand."""
    return range(int(target.variables.get("agent_app_instances", 2)))


def test_the_instances_run_and_come_back_after_a_reboot(host: Connection, numbers: range) -> None:
    for number in numbers:
        assert_unit_runs(host, f"agent_app@{8200 + number}.service")


def test_retention_is_due_daily(host: Connection) -> None:
    assert_unit_runs(host, "agent_app_retention.timer")


def test_they_listen_on_the_private_address_only(
    host: Connection, numbers: range, address: str
) -> None:
    for number in numbers:
        assert_listens_only_at(host, 8200 + number, {address})
        assert_listens_only_at(host, 8300 + number, {address})


def test_they_are_ready_with_database_redis_and_engine(
    host: Connection, numbers: range, address: str
) -> None:
    for number in numbers:
        status, text = http(host, f"http://{address}:{8200 + number}/ready", seconds=60)
        assert status == 200, f"instance {8200 + number} answers {status}: {text[:500]}"


def test_metrics_are_on_their_own_port(host: Connection, numbers: range, address: str) -> None:
    for number in numbers:
        assert http(host, f"http://{address}:{8300 + number}/metrics")[0] == 200
        assert http(host, f"http://{address}:{8200 + number}/metrics")[0] == 404


def test_no_one_chats_without_a_key(host: Connection, address: str) -> None:
    status, text = http(host, f"http://{address}:8200/chat", body={"message": "Hello"})
    assert status == 401, f"answers {status}: {text[:200]}"
    json.loads(text)


def test_the_configuration_is_for_root_and_the_app(host: Connection) -> None:
    assert_access(host, "/etc/agent_app/config.yml", "root", "agent_app", 0o640)


def test_the_running_release_is_the_current_one(host: Connection, numbers: range) -> None:
    current = ask(host, "readlink -f /opt/agent_app/current")
    assert current.startswith("/opt/agent_app/releases/"), f"current leads to {current}"
    for number in numbers:
        unit = f"agent_app@{8200 + number}.service"
        pid = ask(host, "systemctl show -p MainPID --value %s", unit)
        assert ask(host, "stat -c %%U /proc/%s", pid) == "agent_app"
        command = ask(host, "tr '\\0' ' ' </proc/%s/cmdline", pid)
        release = ask(host, "readlink -f /opt/agent_app/instances/%s", str(8200 + number))
        assert release == current, f"{unit} has {release}, the host {current}"
        assert f"/opt/agent_app/instances/{8200 + number}/" in command or release in command
