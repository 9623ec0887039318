"""What a cycle does in which order, against hosts and edges in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ops.app import edge, steps
from ops.app.config import Bounds
from ops.app.plan import Choices, cycle
from ops.app.state import Instance
from ops.errors import OpsError
from ops.fleet.model import Fleet, Host
from ops.operations.work import Context, make_work

ONE, TWO = (Instance("a", port, "10.0.0.1") for port in (8200, 8201))
FLEET = Fleet(
    Path("inventory"), "example.com", (Host("a", "10.0.0.1", frozenset({"agent"}), "10.0.0.1"),)
)


class World:
    """What was done, in order; what fails."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fails: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        def act(*arguments: Any) -> dict[str, Any]:
            said = [getattr(a, "port", a) for a in arguments if not isinstance(a, (float, dict))]
            words = " ".join([name, *map(str, said)])
            self.told.append(words)
            if words in self.fails:
                raise OpsError(f"{words} failed")
            return {"config": "models:\n  demo:\n    context_length: 1\n    max_output_tokens: 1\n"}

        return act


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    @contextmanager
    def on(_self: steps.AppStep, _name: str = "") -> Iterator[World]:
        yield made

    monkeypatch.setattr(steps.AppStep, "on", on)
    for verb in ("take_out", "put_in"):
        monkeypatch.setattr(
            edge, verb, lambda _fleet, b, verb=verb: made.told.append(f"{verb} {b}")
        )
    return made


def make(to: Mapping[str, Any], before: Mapping[str, Any], *, complete: bool = False) -> Any:
    step = cycle([ONE], "t", to, before, Choices(), complete)
    context = Context(FLEET, "op", say=lambda _: None, note=lambda _: None)
    return make_work(context, step, {})


RESTARTED = [
    "take_out 10.0.0.1:8200", "wait_idle 8200", "restart 8200", "wait_ready 8200",
    "put_in 10.0.0.1:8200",
]  # fmt: skip


def test_a_restart_takes_out_waits_restarts_proves_and_puts_back(world: World) -> None:
    make({}, {}).do()
    assert world.told == RESTARTED


def test_a_restart_that_is_taken_back_restarts_nobody_again(world: World) -> None:
    make({}, {}).undo()
    assert world.told == ["ensure_started 8200", "wait_ready 8200", "put_in 10.0.0.1:8200"]


def test_a_deploy_changes_the_release_only_while_the_instance_is_out_and_idle(world: World) -> None:
    make({"release": "r2"}, {"release": "r1"}, complete=True).do()
    assert world.told == [
        "take_out 10.0.0.1:8200", "wait_idle 8200", "set_release 8200 r2", "restart 8200",
        "wait_ready 8200", "complete 8200", "put_in 10.0.0.1:8200",
    ]  # fmt: skip


@pytest.mark.parametrize("fails", ["wait_idle 8200", "set_release 8200 r2", "wait_ready 8200",
                                   "complete 8200"])  # fmt: skip
def test_an_instance_that_fails_stays_out_until_the_old_release_is_back(
    world: World, fails: str
) -> None:
    work = make({"release": "r2"}, {"release": "r1"}, complete=True)
    world.fails = {fails}
    with pytest.raises(OpsError, match="failed"):
        work.do()
    assert "put_in 10.0.0.1:8200" not in world.told
    world.fails, world.told = set(), []
    work.undo()
    assert world.told.index("set_release 8200 r1") < world.told.index("restart 8200")
    assert world.told[-1] == "put_in 10.0.0.1:8200"


def test_the_app_follows_a_model_by_its_configuration(world: World) -> None:
    change = {"model": "demo", "bounds": asdict(Bounds(4096, 1024))}
    make(change, {}).do()
    written = next(words for words in world.told if words.startswith("set_config"))
    assert "context_length: 4096" in written
    assert world.told.index(written) < world.told.index("restart 8200")


def test_of_several_at_once_one_that_fails_does_not_keep_the_others(world: World) -> None:
    step = cycle([ONE, TWO], "t", {}, {}, Choices())
    context = Context(FLEET, "op", say=lambda _: None, note=lambda _: None)
    world.fails = {"wait_ready 8200"}
    with pytest.raises(OpsError, match="wait_ready 8200 failed"):
        make_work(context, step, {}).do()
    assert "put_in 10.0.0.1:8201" in world.told
