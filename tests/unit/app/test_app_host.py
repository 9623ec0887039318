"""What is waited for on an agent host, against a host in memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.app import host as host_module
from ops.app.host import AppHost
from ops.app.state import Instance, instances, instances_on
from ops.errors import OpsError
from ops.fleet.model import Fleet, Host

ONE = Instance("a", 8200, "10.0.0.1")


def agent(name: str, **variables: Any) -> Host:
    return Host(name, "x", frozenset({"agent"}), f"10.0.0.{name}", variables=variables)


class FakeHost(AppHost):
    """Answers each command with the next of what it was given; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(None, agent("1"))  # type: ignore[arg-type]
        self.answers = list(answers)
        self.commands: list[str] = []

    def _run(self, command: str) -> str:
        self.commands.append(command)
        if command.startswith("journalctl"):
            return "the last lines\n"
        if not command.startswith(("python3", "systemctl show")):
            return ""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, str) else json.dumps(answer)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(host_module, "POLL_SECONDS", 0.0)
    yield


def look(active: str, restarts: int = 0, why: str = "") -> dict[str, Any]:
    return {"active": active, "restarts": restarts, "why": why}


def test_an_instance_is_ready_when_it_says_so_itself() -> None:
    FakeHost(look("inactive"), look("activating", 1, "refused"), look("active")).wait_ready(ONE, 9)


def test_an_instance_that_cannot_start_is_told_with_its_last_lines() -> None:
    states = [look("activating", number, "refused") for number in range(4)]
    with pytest.raises(OpsError, match=r"died while it started.*\nthe last lines"):
        FakeHost(*states).wait_ready(ONE, 60)


def test_an_instance_that_never_gets_ready_says_what_stands_in_the_way() -> None:
    with pytest.raises(OpsError, match="PostgreSQL does not answer"):
        FakeHost(look("active", why="PostgreSQL does not answer")).wait_ready(ONE, 0)


def test_an_instance_is_idle_when_nobody_is_there_twice() -> None:
    counts = [{"count": n} for n in (2, 0, 1, 0, 0)]
    made = FakeHost(*counts)
    made.wait_idle(ONE, 9)
    assert len(made.commands) == len(counts)


def test_connections_that_do_not_end_are_counted() -> None:
    with pytest.raises(OpsError, match=r"3 connection\(s\) to agent_app@8200.service did not end"):
        FakeHost({"count": 3}).wait_idle(ONE, 0)


@pytest.mark.parametrize("last", ["ActiveState=failed\nNRestarts=0\n",
                                  "ActiveState=activating\nNRestarts=1\n"])  # fmt: skip
def test_a_migration_that_fails_once_is_ended_and_told(last: str) -> None:
    made = FakeHost("ActiveState=inactive\nNRestarts=0\n", last)
    with pytest.raises(OpsError, match="the last lines"):
        made.migrate("r2", 60)
    assert made.commands[-1].startswith("systemctl stop agent_app_migrate@r2.service")


def test_a_migration_ends_and_leaves_no_unit_behind() -> None:
    made = FakeHost("ActiveState=activating\nNRestarts=0\n", "ActiveState=active\nNRestarts=0\n")
    made.migrate("r2", 60)
    assert made.commands[-1].startswith("systemctl stop agent_app_migrate@r2.service")


def test_instances_are_those_that_the_role_makes_where_the_edge_looks_for_them() -> None:
    one, two = agent("1"), agent("2", agent_app_instances=1, agent_app_base_port=8400)
    fleet = Fleet(Path("x"), "example.com", (one, two))
    assert [i.backend for i in instances(fleet)] == [
        "10.0.0.1:8200", "10.0.0.1:8201", "10.0.0.2:8400"
    ]  # fmt: skip
    single = Fleet(Path("x"), "example.com", (one,))
    assert instances_on(single, one)[0].backend == "127.0.0.1:8200"
    with pytest.raises(OpsError, match="no host runs the agent app among 3"):
        instances(fleet, ["3"])
