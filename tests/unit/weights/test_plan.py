from collections.abc import Sequence
from typing import Any

import pytest

from ops.errors import InputError, OpsError
from ops.models.state import ModelOnHost
from ops.models.upgrade import Choices, plan_upgrade
from ops.operations.plan import Plan, Step
from ops.weights.plan import Wanted, arrival, plan_stage
from ops.weights.shelf import Revision, Shelf

GIB = 2**30
ENTRY: dict[str, Any] = {"name": "demo", "source": "hf://org/name", "revision": "v2"}
WANTED = Wanted("demo", ENTRY, size=60 * GIB)
HAS_IT = {"demo": (Revision("v2", True, 60 * GIB, 1.0, "abc"),)}


def fleet(count: int, *having: str, free: int = 100 * GIB) -> list[Shelf]:
    names = [f"gpu{number}" for number in range(1, count + 1)]
    return [Shelf(n, free=free, models=HAS_IT if n in having else {}) for n in names]


def told(steps: Sequence[Step]) -> list[tuple[str, list[str]]]:
    return [(step.kind.partition(".")[2], list(step.values["hosts"])) for step in steps]


def plan(wanted: Wanted, shelves: list[Shelf]) -> Plan:
    return plan_stage(wanted, shelves, [shelf.host for shelf in shelves])


def test_one_host_fetches_and_the_others_get_it_from_there() -> None:
    made = plan(WANTED, fleet(3))
    assert told(made.steps) == [
        ("room", ["gpu1", "gpu2", "gpu3"]),
        ("fetch", ["gpu1"]),
        ("spread", ["gpu2", "gpu3"]),
        ("fetch", ["gpu2", "gpu3"]),  # the environment; the weights are there
    ]
    assert made.steps[2].values["sources"] == ["gpu1"]
    assert not made.warnings


def test_where_a_host_has_it_nothing_is_fetched_from_outside() -> None:
    steps, left = arrival(WANTED, fleet(3, "gpu2"), ["gpu1", "gpu2", "gpu3"])
    assert told(steps) == [("room", ["gpu1", "gpu3"]), ("spread", ["gpu1", "gpu3"])]
    assert not left


def test_a_host_outside_the_limit_gives_and_gets_nothing() -> None:
    made = plan_stage(WANTED, fleet(3, "gpu3"), ["gpu1"])
    assert told(made.steps) == [("room", ["gpu1"]), ("spread", ["gpu1"]), ("fetch", ["gpu1"])]
    assert made.steps[1].values["sources"] == ["gpu3"]


def test_a_single_host_has_nothing_to_spread() -> None:
    assert told(plan(WANTED, fleet(1)).steps) == [("room", ["gpu1"]), ("fetch", ["gpu1"])]


def test_without_spreading_every_host_fetches_for_itself() -> None:
    made = plan(Wanted("demo", ENTRY, GIB, spread=False), fleet(2))
    assert told(made.steps) == [("room", ["gpu1", "gpu2"]), ("fetch", ["gpu1", "gpu2"])]


def test_weights_that_are_everywhere_leave_the_environment_only() -> None:
    made = plan(WANTED, fleet(2, "gpu1", "gpu2"))
    assert told(made.steps) == [("fetch", ["gpu1", "gpu2"])]


@pytest.mark.parametrize("spread", [True, False])
def test_peers_that_do_not_have_it_are_no_source(spread: bool) -> None:
    with pytest.raises(InputError, match=r"no host has demo v2 to give|no source"):
        plan(Wanted("demo", ENTRY, peers_only=True, spread=spread), fleet(2))


def test_every_host_without_room_is_named_before_anything_moves() -> None:
    shelves = [*fleet(2, free=60 * GIB), Shelf("big", free=90 * GIB)]
    with pytest.raises(OpsError, match="nothing was fetched") as refused:
        plan(WANTED, shelves)
    assert "gpu1 has 60.0 GiB free for 60.0 GiB and 1 to spare" in str(refused.value)
    assert "gpu2" in str(refused.value)
    assert "big" not in str(refused.value)


def test_what_an_earlier_try_brought_needs_no_room_again() -> None:
    part = {"demo": (Revision("v2.staging", False, 50 * GIB, 1.0),)}
    assert plan(WANTED, [Shelf("gpu1", free=12 * GIB, models=part)]).steps


def test_a_host_that_has_it_needs_no_room() -> None:
    assert plan(WANTED, fleet(1, "gpu1", free=0)).steps


def test_a_source_that_does_not_tell_its_size_is_a_warning() -> None:
    assert "does not tell its size" in plan(Wanted("demo", ENTRY), fleet(2)).warnings[0]


@pytest.mark.parametrize("revision", ["refs/pr/1", "../v1", "v2.staging", ".hidden", ""])
def test_a_revision_that_cannot_name_a_folder_is_refused(revision: str) -> None:
    with pytest.raises(InputError, match="cannot name a revision"):
        plan(Wanted("demo", {**ENTRY, "revision": revision}), fleet(1))


def test_an_upgrade_pulls_once_before_it_prepares_any_host() -> None:
    states = [ModelOnHost(f"gpu{n}", "blue", {**ENTRY, "revision": "v1"}) for n in (1, 2, 3)]
    before, _ = arrival(WANTED, fleet(3), ["gpu1", "gpu2", "gpu3"])
    made = plan_upgrade("demo", states, ENTRY, Choices(), before=before)
    kinds = [step.kind for step in made.steps]
    assert kinds[:6] == [
        "weights.room", "weights.fetch", "weights.spread", *["engine.prepare"] * 3,
    ]  # fmt: skip
