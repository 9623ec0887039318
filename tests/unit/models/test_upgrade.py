from dataclasses import replace
from typing import Any

import pytest

from ops.app.state import App, Instance
from ops.errors import InputError, OpsError
from ops.models.state import ModelOnHost
from ops.models.upgrade import Choices, plan_rollback, plan_upgrade
from ops.operations.plan import Plan

OLD: dict[str, Any] = {"name": "demo", "source": "file:///one", "revision": "v1", "gpus": [0]}
NEW = {**OLD, "source": "file:///two", "revision": "v2"}
GIB = 2**30
ONE_CARD = ModelOnHost("gpu1", "blue", OLD, traffic={"blue": 100})
CHOICES = Choices()


def kinds(plan: Plan, host: str = "gpu1") -> list[str]:
    return [step.kind.partition(".")[2] for step in plan.steps if step.host == host]


def cpu_host(name: str, used: int = GIB, available: int = 8 * GIB) -> ModelOnHost:
    return ModelOnHost(
        name, "blue", {**OLD, "gpus": []}, memory_used=used, memory_available=available
    )


def test_two_engines_that_fit_are_moved_side_by_side_and_the_old_one_is_kept() -> None:
    plan = plan_upgrade("demo", [cpu_host("gpu1")], {**NEW, "gpus": []}, CHOICES)
    assert kinds(plan) == ["prepare", "start", *["shift"] * 4, "commit", "retire"]
    shares = [step.values["weights"] for step in plan.steps if step.kind == "engine.shift"]
    assert shares[0] == {"green": 1, "blue": 99}
    assert shares[-1] == {"green": 100}
    assert plan.steps[-1].values["seconds"] == CHOICES.keep_seconds


def test_one_card_that_both_would_claim_is_swapped_with_requests_held() -> None:
    plan = plan_upgrade("demo", [ONE_CARD], NEW, CHOICES)
    assert kinds(plan) == [
        "prepare", "hold", "stop", "start", "shift", "release", "commit"
    ]  # fmt: skip
    assert "requests wait" in plan.warnings[0]


def test_the_swap_of_one_of_two_hosts_holds_nobody_up() -> None:
    plan = plan_upgrade("demo", [ONE_CARD, replace(ONE_CARD, host="gpu2")], NEW, CHOICES)
    assert not any("requests wait" in warning for warning in plan.warnings)


@pytest.mark.parametrize(("share", "strategy"), [(0.45, "prepare start"), (0.9, "prepare hold")])
def test_the_shares_of_a_card_decide_whether_both_fit(share: float, strategy: str) -> None:
    old, new = ({**entry, "gpu_memory_utilization": share} for entry in (OLD, NEW))
    plan = plan_upgrade("demo", [replace(ONE_CARD, entry=old)], new, CHOICES)
    assert " ".join(kinds(plan)[:2]) == strategy


def test_other_cards_have_room_whatever_the_share() -> None:
    plan = plan_upgrade("demo", [ONE_CARD], {**NEW, "gpus": [1]}, CHOICES)
    assert "hold" not in kinds(plan)


def test_a_host_without_room_in_its_memory_is_swapped() -> None:
    full = cpu_host("gpu1", used=10 * GIB, available=4 * GIB)
    assert "hold" in kinds(plan_upgrade("demo", [full], {**NEW, "gpus": []}, CHOICES))


def test_the_operator_may_choose_the_strategy() -> None:
    plan = plan_upgrade("demo", [cpu_host("gpu1")], NEW, replace(CHOICES, strategy="swap"))
    assert "hold" in kinds(plan)


def test_the_canary_goes_first_by_stages_and_the_others_at_once() -> None:
    hosts = [cpu_host("gpu1"), cpu_host("gpu2"), cpu_host("gpu3")]
    plan = plan_upgrade("demo", hosts, {**NEW, "gpus": []}, replace(CHOICES, canary="gpu2"))
    moved = [step.host for step in plan.steps if step.kind == "engine.commit"]
    assert moved == ["gpu2", "gpu1", "gpu3"]
    assert kinds(plan, "gpu2").count("shift") == 4
    assert kinds(plan, "gpu1").count("shift") == 1


def test_weights_are_on_every_host_before_any_engine_moves() -> None:
    hosts = [cpu_host("gpu1"), cpu_host("gpu2")]
    order = [step.kind for step in plan_upgrade("demo", hosts, {**NEW, "gpus": []}, CHOICES).steps]
    assert order[:2] == ["engine.prepare"] * 2
    assert "engine.prepare" not in order[2:]


def test_old_engines_are_let_go_only_when_every_host_and_the_inventory_have_moved() -> None:
    hosts = [cpu_host("gpu1"), cpu_host("gpu2")]
    order = [step.kind for step in plan_upgrade("demo", hosts, {**NEW, "gpus": []}, CHOICES).steps]
    assert order[-3:] == ["inventory.model", "engine.retire", "engine.retire"]


def test_only_hosts_that_differ_move() -> None:
    hosts = [replace(cpu_host("gpu1"), entry=NEW), cpu_host("gpu2")]
    assert {step.host for step in plan_upgrade("demo", hosts, NEW, CHOICES).steps} == {"gpu2", ""}


def test_a_fleet_that_serves_it_already_has_nothing_to_do() -> None:
    with pytest.raises(InputError, match="serves revision v2 already"):
        plan_upgrade("demo", [replace(ONE_CARD, entry=NEW)], NEW, CHOICES)


def test_where_the_weights_came_from_moves_nothing() -> None:
    with pytest.raises(InputError, match="already"):
        plan_upgrade("demo", [ONE_CARD], {**OLD, "source": "hf://a/b"}, CHOICES)


@pytest.mark.parametrize("change", [{"max_model_len": 4096}, {"vllm": "0.33.0"},
                                    {"tool_call_parser": "hermes"}])  # fmt: skip
def test_flags_parsers_and_vllm_itself_are_moved_like_a_revision(change: dict[str, Any]) -> None:
    assert plan_upgrade("demo", [ONE_CARD], {**OLD, **change}, CHOICES).steps


def test_an_engine_kept_from_before_is_cleared_for_the_next() -> None:
    state = replace(cpu_host("gpu1"), standby=NEW, standby_runs=True)
    assert kinds(plan_upgrade("demo", [state], {**NEW, "revision": "v3"}, CHOICES))[0] == "clear"


def test_a_host_that_holds_requests_back_is_not_moved() -> None:
    with pytest.raises(OpsError, match="holds requests back"):
        plan_upgrade("demo", [replace(ONE_CARD, held=True)], NEW, CHOICES)


def test_some_hosts_alone_leave_the_inventory_as_it_is_and_say_so() -> None:
    plan = plan_upgrade("demo", [ONE_CARD], NEW, CHOICES, partial=True)
    assert "inventory.model" not in {step.kind for step in plan.steps}
    assert any("site.yml will stop" in warning for warning in plan.warnings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": "magic"}, "no strategy"),
        ({"ladder": (50, 10, 100)}, "no ladder"),
        ({"ladder": (10, 50)}, "no ladder"),
        ({"ladder": (0, 100)}, "no ladder"),
        ({"canary": "gpu9"}, "does not serve"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_upgrade("demo", [ONE_CARD], NEW, replace(CHOICES, **change))


def test_a_rollback_while_the_old_engine_runs_only_switches() -> None:
    state = ModelOnHost("gpu1", "green", NEW, standby=OLD, standby_runs=True)
    plan = plan_rollback("demo", [state], CHOICES)
    assert kinds(plan) == ["shift", "commit", "retire"]
    assert plan.steps[0].values["weights"] == {"blue": 100}


def test_a_rollback_to_an_engine_that_was_stopped_starts_it_anew() -> None:
    state = replace(ModelOnHost("gpu1", "green", NEW, standby=OLD), memory_available=GIB)
    plan = plan_rollback("demo", [state], CHOICES)
    assert plan.verb == "model rollback"
    assert "start" in kinds(plan)


def test_a_rollback_swaps_where_the_operator_insists_on_it() -> None:
    state = ModelOnHost("gpu1", "green", NEW, standby=OLD, standby_runs=True)
    plan = plan_rollback("demo", [state], replace(CHOICES, strategy="swap"))
    assert kinds(plan)[:3] == ["clear", "prepare", "hold"]
    with pytest.raises(InputError, match="no strategy"):
        plan_rollback("demo", [state], replace(CHOICES, strategy="magic"))


def test_a_rollback_of_hosts_that_served_different_things_is_refused() -> None:
    one = ModelOnHost("gpu1", "green", NEW, standby=OLD)
    two = replace(one, host="gpu2", standby={**OLD, "revision": "v0"})
    with pytest.raises(InputError, match="different things"):
        plan_rollback("demo", [one, two], CHOICES)


def test_a_rollback_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to go back to"):
        plan_rollback("demo", [ONE_CARD], CHOICES)


APP = App((Instance("web", 8200, "10.0.0.1"), Instance("web", 8201, "10.0.0.1")))
SHORT = {**NEW, "max_model_len": 4096}


def order(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]


def test_the_app_takes_a_shorter_context_before_the_engines_do() -> None:
    kinds_in_order = order(plan_upgrade("demo", [ONE_CARD], SHORT, CHOICES, app=APP))
    assert kinds_in_order[:4] == ["engine.prepare", "app.cycle", "app.cycle", "engine.hold"]
    assert kinds_in_order.count("app.cycle") == 2


def test_the_app_takes_a_longer_context_after_the_engines_have() -> None:
    state = replace(ONE_CARD, entry=SHORT)
    kinds_in_order = order(plan_upgrade("demo", [state], NEW, CHOICES, app=APP))
    assert kinds_in_order.index("engine.commit") < kinds_in_order.index("app.cycle")
    assert kinds_in_order[-3:] == ["app.cycle", "app.cycle", "inventory.model"]


def test_an_upgrade_within_the_same_bounds_leaves_the_app_alone() -> None:
    assert "app.cycle" not in order(plan_upgrade("demo", [ONE_CARD], NEW, CHOICES, app=APP))


def test_an_app_whose_cache_knows_revisions_follows_when_the_engines_have_moved() -> None:
    app = replace(APP, knows_revisions=True)
    plan = plan_upgrade("demo", [ONE_CARD], NEW, CHOICES, app=app)
    kinds_in_order = order(plan)
    assert kinds_in_order.count("app.cycle") == 2
    assert kinds_in_order.index("engine.commit") < kinds_in_order.index("app.cycle")
    cycles = [step.values for step in plan.steps if step.kind == "app.cycle"]
    moves = {(v["before"]["bounds"]["revision"], v["to"]["bounds"]["revision"]) for v in cycles}
    assert moves == {(OLD["revision"], NEW["revision"])}


def test_a_rollback_to_a_kept_engine_has_the_app_follow_too() -> None:
    state = ModelOnHost("gpu1", "green", SHORT, standby=OLD, standby_runs=True)
    kinds_in_order = order(plan_rollback("demo", [state], CHOICES, app=APP))
    assert kinds_in_order.index("engine.commit") < kinds_in_order.index("app.cycle")


def test_an_app_of_one_instance_that_has_to_follow_is_told() -> None:
    plan = plan_upgrade("demo", [ONE_CARD], SHORT, CHOICES, app=App(APP.instances[:1]))
    assert any("502" in warning for warning in plan.warnings)
