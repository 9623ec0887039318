"""A driver's move as an operation: its plan, and what each step does and takes back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.driver import steps
from ops.driver.plan import Choices, HostMove, plan_operation
from ops.driver.state import DriverState, Gpu
from ops.errors import OpsError
from ops.fleet.model import Fleet, Host, Model
from ops.operations.plan import Step
from ops.operations.work import Context, make_work

DEMO = Model("demo", "hf://x/demo", "r1", 0)
OLD, NEW = "580.178.04", "595.91.07"
RECORD = {"channel": "archive", "branch": "580", "version": OLD, "packages": {"utils": OLD}}
LASTING = {"nvidia_driver_branch": "595", "nvidia_driver_version": ""}


def fleet(folder: Path) -> Fleet:
    hosts = [Host("data1", "", frozenset({"data", "gpu"}), "", (DEMO,))]
    hosts += [Host(name, "", frozenset({"gpu"}), "", (DEMO,)) for name in ("gpu1", "gpu2")]
    return Fleet(folder, "agent.example.com", tuple(hosts))


def move(host: str, needed: bool = True) -> HostMove:
    return HostMove(
        host=host,
        variables={"nvidia_driver_branch": "595"},
        installed=OLD,
        loaded=OLD,
        to=NEW,
        install={"utils": NEW} if needed else {},
        remove=(),
        reboot="another is loaded" if needed else "",
        models=("demo",),
        alone=(),
        all_in_one=False,
    )


def test_hosts_move_one_after_another_the_keeper_last_and_then_the_inventory(
    tmp_path: Path,
) -> None:
    moves = [move("data1"), move("gpu1"), move("gpu2", needed=False)]
    plan = plan_operation(fleet(tmp_path), "driver upgrade", moves, LASTING, Choices(why="news"))
    kinds = ["driver.drain", "driver.move", "driver.prove", "driver.let_in"]
    assert [(step.host, step.kind) for step in plan.steps] == [
        *(("gpu1", kind) for kind in kinds),
        *(("data1", kind) for kind in kinds),
        ("", "driver.inventory"),
    ]
    assert (plan.subject, plan.why) == ("gpu1 data1", "news")
    assert "2 of 3" in plan.summary[0]


def test_a_part_of_the_fleet_leaves_the_inventory_and_says_so(tmp_path: Path) -> None:
    plan = plan_operation(fleet(tmp_path), "driver upgrade", [move("gpu1")], None, Choices())
    assert "driver.inventory" not in [step.kind for step in plan.steps]
    assert "these hosts go ahead of it" in plan.warnings[-1]


@dataclass
class World:
    """A host as the steps see it: its driver, its engines, what was done to it."""

    fleet: Fleet
    state: DriverState
    done: list[str] = field(default_factory=list)
    noted: dict[str, Any] = field(default_factory=dict)
    failures: list[Any] = field(default_factory=list)

    def play(self, _playbook: Path, _inventory: Path, **more: Any) -> tuple[int, Any]:
        wanted = yaml.safe_load(more["arguments"][-1])
        assert wanted.pop("fleet_operation") == "op"
        self.done.append(f"play {wanted['nvidia_driver_branch']}")
        if not self.failures:
            version = wanted.get("nvidia_driver_version") or NEW
            record = {**RECORD, "version": version, "packages": {"utils": version}}
            self.state = replace(self.state, loaded=version, installed_next=version, record=record)
        return 0, type("Progress", (), {"failures": self.failures})

    def step(self, kind: str) -> Any:
        whole = plan_operation(self.fleet, "driver upgrade", [move("gpu1")], LASTING, Choices())
        (step,) = [step for step in whole.steps if step.kind == kind]
        context = Context(self.fleet, "op", say=lambda _: None, note=self.noted.update)
        return make_work(context, step, dict(self.noted))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    state = DriverState(
        "gpu1", devices=1, gpus=(Gpu(0, "H100", "GPU-1", 81559),), loaded=OLD,
        installed_next=OLD, record=RECORD,
    )  # fmt: skip
    made = World(fleet(tmp_path), state)
    monkeypatch.setattr(steps, "ask", lambda _fleet, _host: made.state)
    monkeypatch.setattr(steps, "run_playbook", made.play)
    monkeypatch.setattr(steps, "connect", lambda _fleet, _host: Line())
    for name in ("stop", "start", "wait_until_ready"):
        monkeypatch.setattr(steps.traffic, name, lambda *_words, name=name: made.done.append(name))
    monkeypatch.setattr(steps.traffic, "active_slots", lambda *_: ("demo-blue",))
    return made


class Line:
    """A connection that nothing goes over."""

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


def test_engines_stop_before_the_driver_moves_and_it_knows_when_it_is_done(world: World) -> None:
    assert not world.step("driver.move").holds()
    world.step("driver.move").do()
    assert world.done == ["stop", "play 595"]
    assert world.step("driver.move").holds()


def test_undo_brings_back_the_very_packages_of_before(world: World) -> None:
    world.step("driver.move").do()
    world.step("driver.move").undo()
    assert world.done == ["stop", "play 595", "stop", "play 580"]
    assert world.state.loaded == OLD


def test_what_was_before_is_noted_once_also_when_it_is_done_again(world: World) -> None:
    world.step("driver.move").do()
    world.step("driver.move").do()
    assert world.noted["record"] == RECORD


def test_a_refusal_that_changed_nothing_plays_nothing_back(world: World) -> None:
    world.failures = [type("F", (), {"host": "gpu1", "message": "no.", "role": "r", "task": "t"})]
    with pytest.raises(OpsError, match="gpu1: no"):
        world.step("driver.move").do()
    world.step("driver.move").undo()
    assert world.done == ["stop", "play 595"]


def test_a_host_without_an_earlier_driver_keeps_the_new_one(world: World) -> None:
    world.state = replace(world.state, loaded="", installed_next="", record={})
    world.step("driver.move").do()
    world.step("driver.move").undo()
    assert world.done == ["stop", "play 595"]
    assert world.state.loaded == NEW


def test_a_move_that_was_never_begun_is_not_undone(world: World) -> None:
    world.step("driver.move").undo()
    assert world.done == []


def test_another_driver_than_wanted_is_no_proof(world: World) -> None:
    with pytest.raises(OpsError, match=f"{OLD} is loaded, not {NEW}"):
        world.step("driver.prove").do()
    assert world.done == []


def test_a_gpu_that_does_not_answer_is_no_proof(world: World) -> None:
    world.step("driver.move").do()
    world.state = replace(world.state, gpus=())
    with pytest.raises(OpsError, match="1 GPUs on the bus, 0 answer"):
        world.step("driver.prove").do()


def test_proof_ends_with_engines_that_make_tokens(world: World) -> None:
    world.step("driver.move").do()
    world.step("driver.prove").do()
    assert world.done[-2:] == ["start", "wait_until_ready"]


@pytest.mark.parametrize("before", ["nvidia_driver_branch: '580'  # long-term\n", ""])
def test_the_inventory_follows_and_goes_back_with_its_comments(
    world: World, tmp_path: Path, before: str
) -> None:
    path = tmp_path / "group_vars" / "gpu.yml"
    path.parent.mkdir()
    path.write_text(f"---\n{before}other: 1\n")
    world.step("driver.inventory").do()
    content = yaml.safe_load(path.read_text())
    assert content == {**LASTING, "other": 1}
    world.step("driver.inventory").undo()
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(before + "other: 1")
    assert ("# long-term" in path.read_text()) == bool(before)


def test_every_kind_of_step_has_its_work() -> None:
    context = Context(fleet(Path()), "op", say=lambda _: None, note=lambda _: None)
    values = {"hosts": ["gpu1"], "to": NEW, "variables": {}}
    for kind, work in steps.KINDS.items():
        assert isinstance(make_work(context, Step(kind, "gpu1", "", values), {}), work)
