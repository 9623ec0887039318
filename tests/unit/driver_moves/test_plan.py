from pathlib import Path
from typing import Any

import pytest

from ops.driver.plan import HostMove, Target, plan_moves, previous_variables
from ops.driver.state import DriverState
from ops.errors import InputError
from ops.fleet.model import Fleet, Host, Model

DEMO = Model("demo", "hf://x/demo", "r1", 0)
ANSWER = {
    "version": "595.91.07",
    "actions": ["install nvidia-utils 595.91.07-1", "remove nvidia-utils-580", "modprobe nvidia"],
}


def fleet(*names: str) -> Fleet:
    hosts = tuple(Host(n, "10.0.0.1", frozenset({"gpu"}), "10.0.0.1", (DEMO,)) for n in names)
    return Fleet(Path("inventories/x"), "agent.example.com", hosts)


def move(whole: Fleet, state: DriverState, answer: dict[str, Any] = ANSWER) -> HostMove:
    [made] = plan_moves(whole, [state], {state.host: {}}, {state.host: answer})
    return made


LOADED = DriverState("a", devices=1, loaded="580.178.04", installed_next="580.178.04")


@pytest.mark.parametrize(
    ("text", "branch", "version"), [("595", "595", ""), ("580.178.04", "580", "580.178.04")]
)
def test_a_target_is_a_branch_or_a_version(text: str, branch: str, version: str) -> None:
    assert Target.parse(text) == Target(branch, version)


@pytest.mark.parametrize("text", ["", "latest", "595.", "v595", "5"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="no driver branch"):
        Target.parse(text)


def test_a_move_reboots_when_another_module_is_loaded() -> None:
    made = move(fleet("a", "b"), LOADED)
    assert made.install == {"nvidia-utils": "595.91.07-1"}
    assert made.remove == ("nvidia-utils-580",)
    assert made.reboot == "580.178.04 is loaded, 595.91.07 will be installed"


def test_a_bare_host_does_not_reboot() -> None:
    made = move(fleet("a", "b"), DriverState("a", devices=1))
    assert (made.needed, made.reboot) == (True, "")


def test_a_host_that_has_it_is_left_alone() -> None:
    made = move(fleet("a"), LOADED, {"version": "580.178.04", "actions": []})
    assert not made.needed
    assert made.warnings() == []


def test_the_plan_says_what_nobody_else_serves() -> None:
    assert move(fleet("a", "b"), LOADED).warnings() == []
    assert move(fleet("a"), LOADED).warnings() == [
        "a is the whole fleet: nothing answers while it reboots"
    ]
    other = Host("b", "10.0.0.2", frozenset({"edge"}), "10.0.0.2")
    whole = Fleet(Path("x"), "d", (*fleet("a").hosts, other))
    assert move(whole, LOADED).warnings() == ["no other host serves demo meanwhile"]


def test_rollback_asks_for_the_recorded_packages() -> None:
    previous = {
        "channel": "archive",
        "branch": "580",
        "version": "580.126.09",
        "packages": {"nvidia-utils-580-server": "580.126.09-0ubuntu1"},
    }
    state = DriverState("a", record={"previous": previous})
    assert previous_variables(state) == {
        "nvidia_driver_channel": "archive",
        "nvidia_driver_branch": "580",
        "nvidia_driver_version": "580.126.09",
        "nvidia_driver_packages": {"nvidia-utils-580-server": "580.126.09-0ubuntu1"},
    }


def test_rollback_without_a_record_says_so() -> None:
    with pytest.raises(InputError, match="no earlier driver"):
        previous_variables(DriverState("a", record={"previous": {}}))
