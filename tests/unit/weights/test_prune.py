from collections.abc import Mapping
from typing import Any

import pytest

from ops.errors import InputError
from ops.weights.prune import Named, judge, named_by, plan_prune
from ops.weights.shelf import Environment, Revision, Shelf, Slot

NOW, HOUR, GIB = 1_000_000.0, 3600.0, 2**30
NOBODY = Named()


def whole(*names: str) -> tuple[Revision, ...]:
    """Revisions, oldest first."""
    return tuple(Revision(n, True, GIB, NOW - 100 + i) for i, n in enumerate(names))


def shelf(
    revisions: tuple[Revision, ...] = (),
    fact: Mapping[str, Any] | None = None,
    slots: tuple[Slot, ...] = (),
    environments: tuple[Environment, ...] = (),
) -> Shelf:
    facts = {"demo": fact} if fact else {}
    return Shelf("gpu1", NOW, 0, {"demo": revisions}, environments, facts, slots)


def going(found: Shelf, keep: int = 0, named: Named = NOBODY, only: str = "") -> list[str]:
    """Names of what goes."""
    return sorted(v.path.rpartition("/")[2] for v in judge(found, keep, named, only) if not v.why)


SERVES = {"revision": "v4", "entry": {"revision": "v4"}, "standby": {"revision": "v3"}}


def test_what_serves_and_the_way_back_stay_whatever_is_kept() -> None:
    assert going(shelf(whole("v4", "v3", "v1", "v2"), SERVES)) == ["v1", "v2"]


def test_of_those_that_nobody_uses_the_newest_stay() -> None:
    assert going(shelf(whole("v1", "v2", "v3", "v4", "v5"), SERVES), keep=1) == ["v1", "v2"]
    assert going(shelf(whole("v1", "v2", "v3", "v4", "v5"), SERVES), keep=2) == ["v1"]


def test_what_an_engine_runs_on_stays_though_the_fact_says_otherwise() -> None:
    slots = (Slot("demo-blue", "e", "/srv/models/demo/v1", True),
             Slot("demo-green", "e", "/srv/models/demo/v2", False))  # fmt: skip
    assert going(shelf(whole("v1", "v2", "v4"), SERVES, slots)) == ["v2"]


def test_what_the_inventory_wants_and_an_open_operation_names_stays() -> None:
    named = Named({("demo", "v1"): "is wanted", ("other", "v2"): "is wanted"})
    assert going(shelf(whole("v1", "v2")), named=named) == ["v2"]


def test_a_host_that_says_nothing_of_a_model_has_no_use_for_it() -> None:
    assert going(shelf(whole("v1"))) == ["v1"]


def test_what_is_being_staged_stays_until_nothing_moved_for_a_day() -> None:
    staging = (Revision("v5.staging", False, GIB, NOW - HOUR),
               Revision("v0.staging", False, GIB, NOW - 25 * HOUR))  # fmt: skip
    assert going(shelf(staging)) == ["v0.staging"]


def test_what_an_interrupted_removal_left_goes_and_what_is_not_ours_stays() -> None:
    odd = (Revision("v1.removing", False, GIB, NOW), Revision("mine", False, GIB, 0.0))
    assert going(shelf(odd), keep=5) == ["v1.removing"]


ENVIRONMENTS = (
    Environment("0.30.0-cuda", True, NOW - 9),
    Environment("0.31.0-cuda", True, NOW - 8),
    Environment("0.32.0-cuda", True, NOW - 7),
    Environment("0.33.0-cuda", True, NOW - 6),
)


def test_environments_that_no_slot_names_go_and_the_newest_of_them_stay() -> None:
    slots = (Slot("demo-blue", "0.32.0-cuda", "", False),)
    assert going(shelf(slots=slots, environments=ENVIRONMENTS), keep=1) == [
        "0.30.0-cuda", "0.31.0-cuda"
    ]  # fmt: skip


def test_environments_that_the_inventory_the_fact_or_the_way_back_need_stay() -> None:
    fact = {"environment": "0.31.0-cuda", "standby": {"revision": "v", "vllm": "0.30.0"}}
    found = shelf(fact=fact, environments=ENVIRONMENTS)
    assert going(found, named=Named(versions={"0.33.0": "is wanted"})) == ["0.32.0-cuda"]
    assert going(found) == ["0.32.0-cuda", "0.33.0-cuda"]


def test_environments_that_are_mounted_or_being_built_stay() -> None:
    odd = (
        Environment("shared", True, NOW - 9, ours=False),
        Environment("building", False, NOW - HOUR),
        Environment("half", False, NOW - 30 * HOUR),
    )
    assert going(shelf(environments=odd)) == ["half"]


def test_one_model_leaves_others_and_environments_alone() -> None:
    found = shelf(whole("v1"), environments=ENVIRONMENTS)
    assert going(found, only="demo") == ["v1"]
    assert going(found, only="other") == []


def test_the_plan_says_of_each_folder_why_and_how_much_it_frees() -> None:
    plan = plan_prune([shelf(whole("v1", "v2", "v3", "v4"), SERVES)], {"gpu1": 0}, NOBODY)
    assert plan.steps[0].values["paths"] == ["/srv/models/demo/v2", "/srv/models/demo/v1"]
    assert "gpu1: /srv/models/demo/v4 stays: it serves" in plan.summary
    assert "gpu1: /srv/models/demo/v3 stays: it is the way back" in plan.summary
    assert plan.summary[-1] == "frees 2.00 GiB"


def test_nothing_to_remove_is_said_with_the_reasons() -> None:
    with pytest.raises(InputError, match="v1 stays: it is among the newest"):
        plan_prune([shelf(whole("v1"))], {"gpu1": 1}, NOBODY)


def test_entries_anywhere_in_a_steps_values_are_found() -> None:
    values = {
        "model": "demo", "slot": "green", "weights": {"green": 100}, "suite": {"name": "chat"},
        "entry": {"name": "demo", "revision": "v2"}, "old_entry": {"revision": "v1"},
    }  # fmt: skip
    assert [(m, e["revision"]) for m, e in named_by(values)] == [("demo", "v2"), ("demo", "v1")]
