from dataclasses import replace
from typing import Any

import pytest

from ops.errors import InputError, OpsError
from ops.models.state import ModelOnHost
from ops.operations.plan import Plan
from ops.restarts.both import joined
from ops.restarts.engine_plan import Choices, plan_restart

ENTRY: dict[str, Any] = {"name": "demo", "source": "hf://a/b", "revision": "v2", "gpus": [0]}
ONE = ModelOnHost("gpu1", "blue", ENTRY, traffic={"blue": 100}, standby={"revision": "v1"})
ROOMY = replace(ONE, entry={**ENTRY, "gpu_memory_utilization": 0.4})
CHOICES = Choices()


def hosts(count: int, like: ModelOnHost = ONE) -> list[ModelOnHost]:
    return [replace(like, host=f"gpu{number}") for number in range(1, count + 1)]


def kinds(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]


def test_a_card_without_room_is_restarted_where_it_is() -> None:
    plan = plan_restart({"demo": [ONE]}, CHOICES)
    assert kinds(plan) == ["restart.engine"]
    assert plan.steps[0].values["hosts"] == [{"host": "gpu1", "slot": "blue"}]
    assert "no host serves demo meanwhile" in plan.warnings[0]


def test_a_card_with_room_is_restarted_beside_itself_and_nobody_waits() -> None:
    plan = plan_restart({"demo": [ROOMY]}, CHOICES)
    assert kinds(plan) == [
        "engine.prepare", "engine.start", "engine.shift", "engine.commit", "engine.retire"
    ]  # fmt: skip
    assert plan.steps[0].values["entry"] == ROOMY.entry
    assert plan.steps[-1].values["seconds"] == 0
    assert plan.warnings == ()


def test_a_restart_keeps_what_a_rollback_goes_back_to() -> None:
    commit = next(s for s in plan_restart({"demo": [ROOMY]}, CHOICES).steps if "commit" in s.kind)
    assert commit.values["standby"] == {"revision": "v1"}


def test_an_engine_kept_for_a_rollback_is_let_go_and_the_plan_says_so() -> None:
    plan = plan_restart({"demo": [replace(ROOMY, standby_runs=True)]}, CHOICES)
    assert kinds(plan)[0] == "engine.clear"
    assert "a rollback starts it anew" in plan.warnings[0]


def test_hosts_follow_one_another_and_nobody_is_held_up() -> None:
    plan = plan_restart({"demo": hosts(3)}, CHOICES)
    assert [step.host for step in plan.steps] == ["gpu1", "gpu2", "gpu3"]
    assert plan.warnings == ()


@pytest.mark.parametrize(("most", "sizes"), [(2, [2, 1]), (5, [3])])
def test_as_many_hosts_are_out_at_once_as_the_operator_allows(most: int, sizes: list[int]) -> None:
    plan = plan_restart({"demo": hosts(3)}, replace(CHOICES, max_unavailable=most))
    assert [len(step.values["hosts"]) for step in plan.steps] == sizes
    assert bool(plan.warnings) is (sizes == [3])


def test_some_hosts_alone_leave_others_to_serve() -> None:
    assert plan_restart({"demo": [ONE]}, CHOICES, partial=True).warnings == ()


def test_the_operator_may_choose_the_strategy() -> None:
    plan = plan_restart({"demo": [ROOMY]}, replace(CHOICES, strategy="in-place"))
    assert kinds(plan) == ["restart.engine"]
    with pytest.raises(InputError, match="no strategy"):
        plan_restart({"demo": [ONE]}, replace(CHOICES, strategy="swap"))


def test_a_fact_of_an_older_release_is_too_little_to_start_another_engine_by() -> None:
    old = replace(ROOMY, entry={"revision": "v2"}, memory_available=2**40)
    assert kinds(plan_restart({"demo": [old]}, CHOICES)) == ["restart.engine"]


def test_a_host_that_holds_requests_back_is_not_restarted() -> None:
    with pytest.raises(OpsError, match="holds requests back"):
        plan_restart({"demo": [replace(ONE, held=True)]}, CHOICES)


def test_every_model_follows_and_several_plans_are_one() -> None:
    plan = plan_restart({"demo": hosts(2), "other": hosts(1)}, CHOICES)
    assert [step.values["model"] for step in plan.steps] == ["demo", "demo", "other"]
    whole = joined("restart all", [plan, plan], "because")
    assert len(whole.steps) == 6
    assert Plan.from_record(whole.as_record()) == whole


def test_nothing_to_restart_is_said_before_anything_is_written() -> None:
    with pytest.raises(InputError, match="no engine and no instance"):
        joined("restart all", [plan_restart({}, CHOICES)], "")
