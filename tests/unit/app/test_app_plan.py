from dataclasses import asdict, replace
from typing import Any

import pytest

from ops.app.config import Bounds
from ops.app.judge import judge
from ops.app.plan import (
    Choices,
    follow_steps,
    plan_deploy,
    plan_restart,
    plan_rollback,
)
from ops.app.state import App, AppOnHost, Instance
from ops.errors import InputError
from ops.models.budget import Sample
from ops.operations.plan import Plan, Step

OLD, NEW = "0.1.0-aaaaaaaa", "0.2.0-bbbbbbbb"
CHOICES = Choices()


def instances(*hosts: str) -> list[Instance]:
    return [Instance(host, port, "10.0.0.1") for host in hosts for port in (8200, 8201)]


def app_on(host: str, release: str = OLD, **more: Any) -> AppOnHost:
    return AppOnHost(host, release, {8200: release, 8201: release}, releases=(OLD, NEW), **more)


def kinds(plan: Plan) -> list[str]:
    return [step.kind.partition(".")[2] for step in plan.steps]


def ports(step: Step) -> list[tuple[str, int]]:
    return [(one["host"], one["port"]) for one in step.values["instances"]]


def deploy(*hosts: str, choices: Choices = CHOICES) -> Plan:
    return plan_deploy(instances(*hosts), [app_on(host) for host in hosts], NEW, "/src", choices)


def test_instances_restart_one_after_another_by_default() -> None:
    plan = plan_restart(instances("a", "b"), CHOICES)
    assert [ports(step) for step in plan.steps] == [
        [("a", 8200)], [("a", 8201)], [("b", 8200)], [("b", 8201)]
    ]  # fmt: skip
    assert plan.warnings == ()
    assert all(step.values["before"] == {} for step in plan.steps)


def test_as_many_are_out_at_once_as_the_operator_allows_and_no_more() -> None:
    plan = plan_restart(instances("a", "b"), replace(CHOICES, max_unavailable=3))
    assert [len(ports(step)) for step in plan.steps] == [3, 1]


@pytest.mark.parametrize(
    ("found", "most", "total", "told"),
    [
        (instances("a")[:1], 1, 1, True),
        (instances("a"), 2, 2, True),
        (instances("a"), 2, 4, False),
        (instances("a"), 1, 2, False),
    ],
)
def test_a_restart_that_leaves_no_instance_says_so_beforehand(
    found: list[Instance], most: int, total: int, told: bool
) -> None:
    plan = plan_restart(found, replace(CHOICES, max_unavailable=most), total=total)
    assert any("502" in warning for warning in plan.warnings) is told


def test_a_deploy_builds_everywhere_and_migrates_once_before_any_instance_moves() -> None:
    plan = deploy("a", "b")
    assert kinds(plan) == [
        "build", "build", "migrate", "cycle", "watch", "cycle", "cycle", "cycle", "commit", "commit"
    ]  # fmt: skip
    assert [step.host for step in plan.steps if step.kind == "app.migrate"] == ["a"]


def test_a_deploy_moves_the_canary_alone_and_watches_it_before_the_others() -> None:
    plan = deploy("a", "b", choices=replace(CHOICES, canary="b", max_unavailable=2))
    cycles = [ports(step) for step in plan.steps if step.kind == "app.cycle"]
    assert cycles == [[("b", 8200)], [("b", 8201), ("a", 8200)], [("a", 8201)]]
    watch = next(step for step in plan.steps if step.kind == "app.watch")
    assert (watch.values["instance"]["host"], watch.values["instance"]["port"]) == ("b", 8200)


def test_a_deployed_instance_has_to_complete_a_request_and_knows_the_way_back() -> None:
    cycle = next(step for step in deploy("a").steps if step.kind == "app.cycle")
    assert cycle.values["complete"]
    assert (cycle.values["to"], cycle.values["before"]) == ({"release": NEW}, {"release": OLD})


def test_a_single_instance_is_not_watched_for_there_is_none_beside_it() -> None:
    state = AppOnHost("a", OLD, {8200: OLD}, releases=(OLD,))
    plan = plan_deploy(instances("a")[:1], [state], NEW, "/src", CHOICES)
    assert "watch" not in kinds(plan)
    assert any("502" in warning for warning in plan.warnings)


def test_a_release_that_every_instance_runs_is_not_deployed_again() -> None:
    with pytest.raises(InputError, match="already"):
        plan_deploy(instances("a"), [app_on("a", NEW)], NEW, "/src", CHOICES)


def test_a_deploy_that_was_cut_short_moves_only_what_is_left() -> None:
    state = AppOnHost("a", OLD, {8200: NEW, 8201: OLD}, releases=(OLD, NEW))
    plan = plan_deploy(instances("a"), [state], NEW, "/src", CHOICES)
    assert [ports(step) for step in plan.steps if step.kind == "app.cycle"] == [[("a", 8201)]]


def test_a_rollback_goes_back_to_what_each_host_ran_and_touches_no_database() -> None:
    state = app_on("a", NEW, fact={"release": NEW, "previous": OLD, "operation": "x"})
    plan = plan_rollback(instances("a"), [state], "", replace(CHOICES, stage_seconds=0))
    assert kinds(plan) == ["cycle", "cycle", "commit"]
    assert plan.steps[0].values["to"] == {"release": OLD}
    assert plan.steps[-1].values == {"release": OLD, "previous": NEW}


@pytest.mark.parametrize("to", ["", "0.0.9-cccccccc"])
def test_a_rollback_to_what_is_not_there_names_what_is(to: str) -> None:
    with pytest.raises(InputError) as raised:
        plan_rollback(instances("a"), [app_on("a", NEW)], to, CHOICES)
    assert OLD in raised.value.cure


@pytest.mark.parametrize(
    ("change", "words"),
    [({"max_unavailable": 0}, "at least one"), ({"canary": "z"}, "z does not run the app")],
)
def test_a_wrong_choice_is_refused_before_anything(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        deploy("a", choices=replace(CHOICES, **change))


@pytest.mark.parametrize(
    ("old", "new", "first", "last"),
    [
        ({}, {"max_model_len": 4096}, Bounds(4096, 1024), None),
        ({"max_model_len": 4096}, {}, None, Bounds(8192, 1024)),
        ({"max_model_len": 1024}, {"max_model_len": 8192}, None, Bounds(8192, 1024)),
        (
            {"max_output_tokens": 512},
            {"max_model_len": 4096, "max_output_tokens": 2048},
            Bounds(4096, 512),
            Bounds(4096, 2048),
        ),
        ({"revision": "v1"}, {"revision": "v2"}, None, None),
    ],
    ids=["shrinks", "grows", "both grow", "one of each", "neither"],
)
def test_the_app_follows_a_model_before_it_shrinks_and_after_it_grew(
    old: dict[str, Any], new: dict[str, Any], first: Bounds | None, last: Bounds | None
) -> None:
    before, after = follow_steps(App(tuple(instances("a"))), "demo", old, new, CHOICES)
    for steps, bounds in ((before, first), (after, last)):
        assert [step.values["to"] for step in steps] == (
            [{"model": "demo", "bounds": asdict(bounds)}] * 2 if bounds else []
        )


@pytest.mark.parametrize(
    ("new", "others", "over"),
    [
        (Sample(100, 1), Sample(100, 0), False),
        (Sample(2, 2), Sample(100, 0), False),
        (Sample(100, 5), Sample(100, 0), True),
        (Sample(100, 5), Sample(300, 15), False),
        (Sample(3, 3), Sample(), True),
    ],
    ids=["few", "too few to tell", "over", "like the others", "alone"],
)
def test_a_canary_is_over_its_budget_by_what_it_fails_beyond_the_others(
    new: Sample, others: Sample, over: bool
) -> None:
    assert bool(judge(new, others, 0.01)) is over


def test_a_plan_survives_its_storage() -> None:
    plan = deploy("a", "b")
    assert Plan.from_record(plan.as_record()) == plan
