from pathlib import Path
from typing import Any

import pytest

from ops.cli import restart
from ops.cli.carry_out import carry_out_through_reboots
from ops.errors import RemoteError
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


def reboot(name: str, monkeypatch: pytest.MonkeyPatch, resets: int = 0) -> list[str]:
    """Reboot a host whose line to the keeper breaks; return the operations that were taken up.

    `resets` is how often the host that boots cuts the new line as well.
    """
    lost, resumed = LockLostError("the line broke"), list[str]()
    lost.operation = "op-1"
    plan = plan_restart(FLEET, [FLEET.host(name)], Choices())

    def carry_out(*_words: Any, **_more: Any) -> None:
        raise lost

    def resume(_fleet: Fleet, operation: str, _reporter: Any) -> Operation:
        resumed.append(operation)
        if len(resumed) <= resets:
            raise RemoteError("Connection reset by peer")
        return Operation(operation, plan, ({"event": "end"},))

    monkeypatch.setattr("ops.cli.carry_out.carry_out", carry_out)
    monkeypatch.setattr(run, "resume", resume)
    monkeypatch.setattr("ops.cli.carry_out.KEEPER_POLL_SECONDS", 0)
    carry_out_through_reboots(FLEET, plan, 0, yes=True, dry_run=False, as_json=False)
    return resumed


def test_the_keepers_own_reboot_cuts_its_line_and_is_taken_up_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert reboot("db", monkeypatch) == ["op-1"]


def test_a_host_that_boots_may_reset_the_first_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reboot("db", monkeypatch, resets=2) == ["op-1"] * 3


def test_a_keeper_that_never_comes_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.cli.carry_out.KEEPER_SECONDS", 0)
    with pytest.raises(RemoteError):
        reboot("db", monkeypatch, resets=10**9)


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
