"""The runner against works in memory: killed at every instant, resumed, aborted."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ops.errors import OpsError
from ops.fleet.model import Fleet, Host
from ops.operations.journal import Event, Operation, Status, status
from ops.operations.plan import Plan, Step
from ops.operations.run import PausedError, RolledBackError, Runner, StopFlag, StuckError
from ops.operations.work import Context, LastingError, Work

STEPS = tuple(
    Step(kind=f"set.{name}", host=host, title=f"set {name}", values={"name": name})
    for name, host in (("a", "one"), ("b", "one"), ("c", "two"), ("d", ""))
)
HERE = "d"
"""The step of the control machine."""
PLAN = Plan("test", "subject", ("sets four things",), STEPS)
HOSTS = tuple(Host(name, "127.0.0.1", frozenset({"gpu"}), "127.0.0.1") for name in ("one", "two"))
FLEET = Fleet(Path("inventory"), "example.com", HOSTS)


class Killed(BaseException):
    """SIGKILL: nothing of ours runs after it."""


@dataclass
class World:
    """What the steps change, and when the process dies."""

    things: dict[str, str] = field(default_factory=lambda: dict.fromkeys("abcd", "old"))
    entries: list[dict[str, Any]] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    undo_fails: set[str] = field(default_factory=set)
    lasts: set[str] = field(default_factory=set)
    die_at: int = -1
    ticks: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self.die_at:
            raise Killed

    def append(self, event: str, **fields: Any) -> None:
        self.tick()
        self.entries.append({"event": str(event), "at": 0.0, **fields})
        self.tick()

    def opened(self, operation: Operation, how: str) -> None: ...

    def step(self, number: int, step: Step, event: Event, seconds: float, why: str) -> None: ...

    def say(self, words: str) -> None: ...

    def make(self, context: Context, step: Step, detail: Mapping[str, Any]) -> Work:
        return SetThing(self, context, step.values["name"], detail)

    def runner(self, flag: StopFlag | None = None) -> Runner:
        operation = Operation("id", PLAN, tuple(self.entries))
        return Runner(FLEET, operation, self, self, flag or StopFlag(), self.make)


@dataclass
class SetThing:
    world: World
    context: Context
    name: str
    detail: Mapping[str, Any]

    def do(self) -> None:
        self.world.tick()
        self.context.note({"before": self.detail.get("before", self.world.things[self.name])})
        if self.name in self.world.fails:
            raise OpsError(f"{self.name} cannot be set")
        self.world.things[self.name] = "new"
        self.world.counts[self.name] = self.world.counts.get(self.name, 0) + 1
        self.world.tick()

    def holds(self) -> bool:
        return self.world.things[self.name] == "new"

    def undo(self) -> None:
        self.world.tick()
        if self.name in self.world.undo_fails:
            raise OpsError(f"{self.name} is away")
        if self.name in self.world.lasts:
            raise LastingError(f"{self.name} is gone for good")
        self.world.things[self.name] = self.detail.get("before", self.world.things[self.name])
        self.world.tick()


def instants(world: World) -> int:
    """How many instants a run has at which it can die."""
    with suppress(RolledBackError):
        world.runner().forward()
    return world.ticks


def test_an_operation_does_every_step_and_ends() -> None:
    world = World()
    operation = world.runner().forward()
    assert set(world.things.values()) == {"new"}
    assert status(operation.entries, held=True) == Status.DONE


@pytest.mark.parametrize("instant", range(1, instants(World()) + 1))
def test_an_operation_killed_at_any_instant_is_finished_by_a_resume(instant: int) -> None:
    world = World(die_at=instant)
    with pytest.raises(Killed):
        world.runner().forward()
    operation = world.runner().forward()
    assert set(world.things.values()) == {"new"}
    assert operation.ended
    once = {name: count for name, count in world.counts.items() if name != HERE}
    assert all(count == 1 for count in once.values()), "a step that held was done again"


def test_a_resume_does_again_what_another_control_machine_had_done_on_itself() -> None:
    world = World()
    world.die_at = instants(World())  # the kill comes as the journal ends
    with pytest.raises(Killed):
        world.runner().forward()
    del world.entries[-1]
    world.things[HERE] = "old"  # as the other machine has it
    world.runner().forward()
    assert set(world.things.values()) == {"new"}
    assert world.counts == {"a": 1, "b": 1, "c": 1, HERE: 2}


@pytest.mark.parametrize("instant", range(1, instants(World()) + 1))
def test_an_operation_killed_at_any_instant_is_brought_back_by_an_abort(instant: int) -> None:
    world = World(die_at=instant)
    with pytest.raises(Killed):
        world.runner().forward()
    runner = world.runner()
    if runner.operation.ended:
        return
    runner.turn()
    operation = runner.backward()
    assert set(world.things.values()) == {"old"}
    assert operation.status == Status.ROLLED_BACK


@pytest.mark.parametrize("failing", "abcd")
def test_a_step_that_fails_brings_all_back_even_when_killed_meanwhile(failing: str) -> None:
    for instant in range(1, instants(World(fails={failing})) + 1):
        world = World(fails={failing}, die_at=instant)
        with pytest.raises(Killed):
            world.runner().forward()
        again = world.runner()
        if again.operation.ended:
            continue
        if again.operation.going_back:
            again.backward()
        else:
            with pytest.raises(RolledBackError, match=f"{failing} cannot be set"):
                again.forward()
        assert set(world.things.values()) == {"old"}


def test_a_host_that_is_lost_while_going_back_does_not_hold_up_the_others() -> None:
    world = World(fails={"d"}, undo_fails={"b"})
    with pytest.raises(StuckError, match="b is away"):
        world.runner().forward()
    assert world.things == {"a": "new", "b": "new", "c": "old", "d": "old"}
    assert status(world.entries, held=False) == Status.STUCK
    world.undo_fails.clear()
    world.entries.append({"event": "taken", "at": 0.0, "how": "resume"})
    assert world.runner().backward().status == Status.ROLLED_BACK
    assert set(world.things.values()) == {"old"}


def test_what_nothing_can_bring_back_is_told_and_the_operation_ends() -> None:
    world = World(fails={"d"}, lasts={"b"})
    with pytest.raises(RolledBackError, match=r"rest was brought back:\s+b is gone for good"):
        world.runner().forward()
    assert world.things == {"a": "old", "b": "new", "c": "old", "d": "old"}
    assert status(world.entries, held=False) == Status.ROLLED_BACK


def test_an_abort_says_what_nothing_can_bring_back() -> None:
    world = World(lasts={"a"}, die_at=instants(World()) - 3)
    with suppress(Killed):
        world.runner().forward()
    runner = world.runner()
    runner.turn()
    with pytest.raises(LastingError, match="a is gone for good"):
        runner.backward()
    assert status(world.entries, held=False) == Status.ROLLED_BACK


def test_a_stop_that_was_asked_for_comes_between_two_steps_and_says_what_is_true() -> None:
    world, flag = World(), StopFlag()
    runner = world.runner(flag)
    flag.set = True
    with pytest.raises(PausedError, match="stopped before step 1"):
        runner.forward()
    assert set(world.things.values()) == {"old"}
    assert status(world.entries, held=False) == Status.UNFINISHED


def test_a_plan_survives_its_storage() -> None:
    assert Plan.from_record(PLAN.as_record()) == PLAN


def test_a_plan_of_another_format_is_refused() -> None:
    with pytest.raises(OpsError, match="format 99"):
        Plan.from_record({**PLAN.as_record(), "format": 99})
