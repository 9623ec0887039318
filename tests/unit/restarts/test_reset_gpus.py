"""A GPU's reset, step by step, on a host in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ops.engine import traffic
from ops.errors import InputError, NotIdleError, OpsError, RemoteError
from ops.fleet.model import Fleet, Host, Model
from ops.operations.plan import Plan
from ops.operations.work import Context, make_work
from ops.restarts import gpu_steps, host_steps
from ops.restarts.gpu_plan import Choices, plan_reset

MODELS = (Model("demo", "hf://x/demo", "r1", 0), Model("other", "hf://x/other", "r1", 1))
ENTRIES = {"models": [{"name": "demo", "gpus": [0]}, {"name": "other", "gpus": [1]}]}
GPU1 = Host("gpu1", "10.0.0.1", frozenset({"gpu"}), "10.0.0.1", MODELS, variables=ENTRIES)
GPU2 = Host("gpu2", "10.0.0.2", frozenset({"gpu"}), "10.0.0.2", MODELS[:1], variables=ENTRIES)
DATA = Host("db", "10.0.0.3", frozenset({"data"}), "10.0.0.3")
FLEET = Fleet(Path("inventory"), "example.com", (GPU1, GPU2, DATA))
SLOTS = (traffic.Slot("demo", "blue", 8100), traffic.Slot("other", "green", 8103))
CHOICES = Choices()
RUNNING = """\
engine@demo-blue.service loaded active running Engine
engine@demo-green.service loaded inactive dead Engine
engine@other-green.service loaded active running Engine
gpu_exporter.service loaded active running GPU exporter
nvidia-persistenced.service loaded active running NVIDIA Persistence Daemon
nginx.service loaded active running nginx
"""


@dataclass
class World:
    """What the host was told, and how it is."""

    told: list[str] = field(default_factory=list)
    left: int = 0
    refuses: str = ""
    listed: str = "0\n1\n"
    noted: dict[str, Any] = field(default_factory=dict)

    def run(self, _connection: Any, _host: Host, command: str) -> str:
        if command == gpu_steps.LIST:
            return RUNNING
        self.told.append(command)
        if command == gpu_steps.ENABLED:
            return "gpu_exporter.service enabled enabled\n"
        if "--gpu-reset" in command and self.refuses:
            raise RemoteError(self.refuses)
        return self.listed if "--query-gpu" in command else ""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    @contextmanager
    def connect(_fleet: Fleet, host: Host) -> Iterator[str]:
        yield host.name

    monkeypatch.setattr(gpu_steps, "connect", connect)
    monkeypatch.setattr(gpu_steps, "run", made.run)
    monkeypatch.setattr(traffic, "run", made.run)
    monkeypatch.setattr(traffic, "drain", lambda *_: (made.told.append("drain"), made.left)[1])
    monkeypatch.setattr(traffic, "active_slots", lambda *_: SLOTS)
    monkeypatch.setattr(
        host_steps.HostStep, "prove", lambda _self, host: made.told.append(f"prove {host.name}")
    )
    return made


def planned(gpu: int | None = 0, choices: Choices = CHOICES) -> Plan:
    return plan_reset(FLEET, GPU1, gpu, choices)


def work(world: World, plan: Plan, number: int) -> Any:
    context = Context(FLEET, "op", say=world.told.append, note=world.noted.update)
    return make_work(context, plan.steps[number], dict(world.noted))


def stops(world: World) -> list[str]:
    return [told for told in world.told if told.startswith("systemctl st")]


def test_the_host_leaves_traffic_everybody_lets_go_it_is_reset_proven_and_comes_back() -> None:
    plan = planned()
    assert [s.kind for s in plan.steps] == [
        "gpu.drain", "gpu.stop", "gpu.reset", "gpu.start", "gpu.let_in"
    ]  # fmt: skip
    assert Plan.from_record(plan.as_record()) == plan
    assert plan.subject == "gpu1 GPU 0"
    assert plan.warnings == ("no other host serves other meanwhile: the app holds its requests on",)


@pytest.mark.parametrize(("host", "gpu"), [(DATA, None), (GPU1, -1)])
def test_what_has_no_such_gpu_is_refused(host: Host, gpu: int | None) -> None:
    with pytest.raises(InputError):
        plan_reset(FLEET, host, gpu, Choices())


def test_only_engines_of_that_gpu_stop_and_whoever_watches_all(world: World) -> None:
    work(world, planned(), 1).do()
    assert stops(world) == [
        "systemctl stop engine@demo-blue.service gpu_exporter.service nvidia-persistenced.service"
    ]


def test_for_all_gpus_every_engine_stops(world: World) -> None:
    work(world, planned(None), 1).do()
    assert "engine@demo-blue.service engine@other-green.service" in stops(world)[0]


def test_a_second_attempt_remembers_who_ran_before_the_first(world: World) -> None:
    world.noted = {"units": ["gpu_exporter.service"]}
    work(world, planned(), 1).do()
    assert stops(world) == ["systemctl stop gpu_exporter.service"]


def test_the_chosen_gpu_is_reset_and_has_to_answer(world: World) -> None:
    work(world, planned(), 2).do()
    assert world.told[0] == "timeout 120 nvidia-smi --gpu-reset -i 0"
    world.listed = "1\n"
    with pytest.raises(OpsError, match="does not answer after its reset"):
        work(world, planned(), 2).do()


def test_all_gpus_are_reset_together(world: World) -> None:
    work(world, planned(None), 2).do()
    assert world.told[0] == "timeout 120 nvidia-smi --gpu-reset"


def test_a_gpu_that_cannot_be_reset_names_the_cure(world: World) -> None:
    world.refuses = "GPU 0 is currently in use by another process"
    with pytest.raises(OpsError, match="in use by another process") as caught:
        work(world, planned(), 2).do()
    assert "ops restart host gpu1" in caught.value.cure


def test_engines_that_serve_and_enabled_watchers_start_and_are_proven(world: World) -> None:
    work(world, planned(), 3).do()
    assert stops(world) == [
        "systemctl start --no-block gpu_exporter.service "
        "engine@demo-blue.service engine@other-green.service"
    ]
    assert world.told[-1] == "prove gpu1"


def test_taking_back_a_stop_starts_whoever_ran(world: World) -> None:
    world.noted = {"units": ["engine@demo-green.service"]}
    work(world, planned(), 1).undo()
    assert stops(world)[0].endswith("engine@demo-green.service")


def test_taking_back_a_drain_proves_before_it_lets_in(world: World) -> None:
    work(world, planned(), 0).undo()
    assert world.told == ["prove gpu1", "rm -f /var/lib/rackhand/drained"]


def test_requests_that_do_not_end_stop_it_unless_they_may_be_cut(world: World) -> None:
    world.left = 3
    with pytest.raises(NotIdleError, match="3 request"):
        work(world, planned(), 0).do()
    work(world, planned(choices=Choices(cut=True)), 0).do()
    assert "they are cut" in world.told[-1]
