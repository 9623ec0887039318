from dataclasses import replace
from pathlib import Path

import pytest

from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet, Host, Model
from ops.operations.work import Context
from ops.restarts import host_steps
from ops.restarts.host_plan import Choices, pick, plan_drain, plan_let_in, plan_restart

DEMO = Model("demo", "hf://x/demo", "r1", 0)
CHOICES = Choices()


def fleet(**groups: str) -> Fleet:
    hosts = tuple(
        Host(name, "10.0.0.1", frozenset(words.split()), "10.0.0.1", (DEMO,))
        for name, words in groups.items()
    )
    return Fleet(Path("inventories/x"), "agent.example.com", hosts)


SINGLE = fleet(one="gpu agent data edge")
MANY = fleet(front="edge agent", back="edge agent", db="data", gpu1="gpu", gpu2="gpu")


def told(whole: Fleet, *words: str, choices: Choices = CHOICES) -> str:
    return " ".join(plan_restart(whole, pick(whole, words), choices).warnings)


def test_a_host_leaves_traffic_boots_is_proven_and_comes_back() -> None:
    plan = plan_restart(MANY, pick(MANY, ["gpu1"]), CHOICES)
    assert [s.kind for s in plan.steps] == [
        "host.drain",
        "host.reboot",
        "host.prove",
        "host.let_in",
    ]
    assert plan.warnings == ()


def test_hosts_are_named_one_by_one_or_by_group_and_come_once() -> None:
    assert [h.name for h in pick(MANY, ["gpu", "gpu1", "front"])] == ["front", "gpu1", "gpu2"]
    with pytest.raises(InputError, match="no host is named nobody"):
        pick(MANY, ["nobody"])


def test_hosts_go_one_after_another_and_the_keeper_of_the_lock_goes_last() -> None:
    plan = plan_restart(MANY, MANY.hosts, CHOICES)
    rebooted = [step.values["hosts"] for step in plan.steps if step.kind == "host.reboot"]
    assert rebooted == [["front"], ["back"], ["gpu1"], ["gpu2"], ["db"]]


def test_as_many_hosts_are_away_at_once_as_the_operator_allows() -> None:
    plan = plan_restart(MANY, pick(MANY, ["gpu"]), replace(CHOICES, max_unavailable=2))
    assert [step.values["hosts"] for step in plan.steps] == [["gpu1", "gpu2"]] * 4
    assert "no other host serves demo" in plan.warnings[0]


def test_a_fleet_of_one_host_says_beforehand_that_nothing_answers() -> None:
    assert told(SINGLE, "one") == "it is the only host: nothing answers while it reboots"


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("front",), ""), (("db",), "need the database"), (("gpu1",), "")],
)
def test_what_no_other_host_does_is_told(words: tuple[str, ...], expected: str) -> None:
    assert expected in told(MANY, *words)
    assert bool(told(MANY, *words)) is bool(expected)


def test_the_only_edge_is_told() -> None:
    assert "nothing answers" in told(fleet(a="edge agent", b="gpu data"), "a")


class Boots:
    """A host's boot, and how often it was rebooted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boot, self.reboots, self.noted = 1, 0, {}
        monkeypatch.setattr(host_steps.Reboot, "_boot", lambda _self, _host: str(self.boot))
        monkeypatch.setattr(host_steps.Reboot, "_order", lambda _self, _host: self.reboot())

    def reboot(self) -> None:
        self.boot += 1
        self.reboots += 1

    def step(self) -> host_steps.Reboot:
        step = plan_restart(SINGLE, SINGLE.hosts, CHOICES).steps[1]
        context = Context(SINGLE, "op", say=lambda _: None, note=self.noted.update)
        return host_steps.Reboot(context, step, dict(self.noted))


def test_a_death_during_a_reboot_reboots_nobody_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Boots(monkeypatch)
    assert not world.step().holds()
    world.step().do()
    assert world.step().holds()
    world.step().do()
    assert world.reboots == 1


def test_a_death_before_the_reboot_reboots_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Boots(monkeypatch)
    world.noted = {"boots": {"one": "1"}}
    assert not world.step().holds()
    world.step().do()
    assert world.reboots == 1


def test_a_host_is_drained_and_stays_out_until_it_is_proven() -> None:
    gpu1 = MANY.host("gpu1")
    assert [s.kind for s in plan_drain(gpu1, CHOICES).steps] == ["host.drain"]
    assert [s.kind for s in plan_let_in(gpu1, CHOICES).steps] == ["host.prove", "host.let_in"]


def test_a_reboot_that_never_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Boots(monkeypatch)
    monkeypatch.setattr(host_steps.Reboot, "_order", lambda _self, _host: None)
    monkeypatch.setattr(host_steps, "POLL_SECONDS", 0.0)
    step = world.step()
    step.values = {**step.values, "reboot_seconds": 0.0}
    with pytest.raises(OpsError, match="still has not"):
        step.do()
