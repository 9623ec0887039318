from pathlib import Path
from typing import Any

import pytest

from ops.cli import restart
from ops.cli.carry_out import carry_out_through_reboots
from ops.fleet.model import Fleet, Host, Model
from ops.operations import run
from ops.operations.journal import Operation
from ops.operations.keeper import LockLostError
from ops.restarts.host_plan import Choices, plan_restart

DEMO = Model("demo", "hf://x/demo", "r1", 0)
FLEET = Fleet(
    Path("x"),
    "example.com",
    tuple(
        Host(name, "10.0.0.1", frozenset({group}), "10.0.0.1", (DEMO,))
        for name, group in (("db", "data"), ("gpu1", "gpu"), ("web", "agent"))
    ),
)


def reboot(name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reboot a host whose line to the keeper breaks; return the operations that were taken up."""
    lost, resumed = LockLostError("the line broke"), list[str]()
    lost.operation = "op-1"
    plan = plan_restart(FLEET, [FLEET.host(name)], Choices())

    def carry_out(*_words: Any, **_more: Any) -> None:
        raise lost

    def resume(_fleet: Fleet, operation: str, _reporter: Any) -> Operation:
        resumed.append(operation)
        return Operation(operation, plan, ({"event": "end"},))

    monkeypatch.setattr("ops.cli.carry_out.carry_out", carry_out)
    monkeypatch.setattr(run, "resume", resume)
    carry_out_through_reboots(FLEET, plan, 0, yes=True, dry_run=False, as_json=False)
    return resumed


def test_the_keepers_own_reboot_cuts_its_line_and_is_taken_up_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert reboot("db", monkeypatch) == ["op-1"]


def test_a_line_that_breaks_while_another_host_reboots_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(LockLostError):
        reboot("gpu1", monkeypatch)


@pytest.mark.parametrize(("limit", "names"), [("", ["demo"]), ("gpu1", ["demo"]), ("web", [])])
def test_all_models_are_those_of_the_hosts_at_hand(
    monkeypatch: pytest.MonkeyPatch, limit: str, names: list[str]
) -> None:
    monkeypatch.setattr("ops.models.state.survey", lambda _fleet, _name, _limit: [])
    assert list(restart._states(FLEET, "", limit)) == names
