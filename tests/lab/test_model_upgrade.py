"""`ops model` on a host that serves: upgrades, rollbacks, deaths of the operator, bad new engines.

The engine is the stand-in, so that a start takes a second; `test_real_engine_upgrade.py` has the
real one.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from operators import Said, ops, ops_told, ops_until
from revisions import Revisions, fact, serves
from stack import Lab, Stack, run_site
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from traffic import Traffic, traffic

from ops.fleet.desired import edit
from ops.models.inventory import wanted_entry
from ops.places import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

STAGES = ("--stage-seconds", "3")


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs) as made:
        yield made


@pytest.fixture(scope="module")
def revisions(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Revisions:
    return Revisions(stack, tmp_path_factory.mktemp("weights"))


def assert_nothing_was_lost(running: Traffic, least: int) -> None:
    assert running.failures == [], running.told()
    assert len(running.answers) >= least, running.told()
    print(running.told())


def assert_serves(stack: Stack, before: dict[str, Any]) -> None:
    """The host serves what it did before, and says so."""
    assert serves(stack) == {name: before[name] for name in ("active", "revision", "traffic")}
    assert wanted_entry(stack.lab.inventory, "demo")["revision"] == before["revision"]
    assert not json.loads(stack.lab.ssh("node1", "ls /var/lib/rackhand/held | wc -l"))


def test_upgrade_rollback_and_swap_lose_no_request_and_site_yml_agrees(
    stack: Stack, revisions: Revisions
) -> None:
    before = fact(stack)
    with traffic(stack) as running:
        ops(stack, "model", "upgrade", *revisions.next(*STAGES))
        assert fact(stack)["active"] != before["active"]
        assert_site_changes_nothing(stack)
        ops(stack, "model", "rollback", "demo", "--yes")
        assert fact(stack)["active"] == before["active"]
        assert_site_changes_nothing(stack)
        ops(stack, "model", "upgrade", *revisions.next("--strategy", "swap"))
    assert_nothing_was_lost(running, least=300)
    assert_site_changes_nothing(stack)


def test_flags_alone_are_moved_the_same_way_and_the_inventory_can_lead(
    stack: Stack, revisions: Revisions
) -> None:
    path, flags = stack.lab.inventory / "group_vars/all.yml", ["--max-num-seqs 12"]
    edit(path, lambda content: content["models"][0].update(extra_args=flags))
    refused = run_site(stack.lab)
    assert refused.status != 0
    assert "serves extra_args [], the inventory wants" in refused.output
    assert "ops model upgrade" in refused.output
    ops(stack, "model", "upgrade", "demo", "--yes", "--shift", "100", "--stage-seconds", "0")
    assert fact(stack)["entry"]["extra_args"] == flags
    assert flags[0] in stack.lab.ssh("node1", "pgrep -af 'stand-in-engine serve'")
    assert_site_changes_nothing(stack)
    ops(stack, "model", "upgrade", "demo", "--set", "extra_args=[]", "--yes", *STAGES)


@pytest.mark.parametrize(
    ("faults", "options", "words"),
    [
        ("crash_at_load", (), "Engine core initialization failed"),
        pytest.param("out_of_memory", (), "CUDA out of memory", marks=pytest.mark.long),
        pytest.param("hang_at_load", ("--ready-timeout", "6"), "did not answer in 6 s",
                     marks=pytest.mark.long),
        pytest.param("slow:40", ("--stage-seconds", "12", "--shift", "50,100"), "over its budget",
                     marks=pytest.mark.long),
        ("error_rate:0.5", ("--stage-seconds", "8", "--shift", "50,100"), "requests failed"),
    ],
)  # fmt: skip
def test_a_bad_new_engine_is_rolled_back_by_itself(
    stack: Stack, revisions: Revisions, faults: str, options: tuple[str, ...], words: str
) -> None:
    before = fact(stack)
    bad = json.dumps({"STAND_IN_FAULTS": faults})
    with traffic(stack) as running:
        said = ops(
            stack, "model", "upgrade",
            *revisions.next("--set", f"environment={bad}", *STAGES, *options), status=1,
        )  # fmt: skip
    assert words in said.output
    assert "everything was brought back" in said.output
    assert_serves(stack, before)
    assert running.failures == [], running.told()
    assert_site_changes_nothing(stack)


SUITE = """
name: echo
pass_share: 0.5
tolerance: 0.1
repetitions: 3
cases:
  - {id: anything, prompt: Good morning, graders: [{regex: "."}]}
  - {id: echo, prompt: The word is heron, graders: [{contains: [heron]}]}
"""


def test_an_engine_that_answers_garbage_is_stopped_by_the_suite_against_the_baseline(
    stack: Stack, revisions: Revisions, tmp_path: Path
) -> None:
    suite = tmp_path / "echo.yml"
    suite.write_text(SUITE)  # half of it is enough by its own bar: the baseline is what refuses
    before = fact(stack)
    bad = json.dumps({"STAND_IN_FAULTS": "garbage"})
    with traffic(stack) as running:
        said = ops_told(
            stack, "model", "upgrade",
            *revisions.next("--set", f"environment={bad}", "--eval", str(suite), *STAGES), status=1,
        )  # fmt: skip
    assert f"50.0% pass, 100.0% did with revision {before['revision']}: echo" in said.output
    assert "everything was brought back" in said.output
    kinds = {event["kind"] for event in said.events if "kind" in event}
    assert "engine.gate" in kinds
    assert "engine.shift" not in kinds, "it got requests"
    assert_serves(stack, before)
    assert running.failures == [], running.told()
    assert_site_changes_nothing(stack)


@pytest.mark.parametrize(("kind", "moment", "how"), [
    ("engine.shift", "done", "resume"),
    pytest.param("engine.commit", "done", "abort", marks=pytest.mark.long),
])  # fmt: skip
def test_an_operator_who_dies_is_followed_by_another(
    stack: Stack, revisions: Revisions, tmp_path: Path, kind: str, moment: str, how: str
) -> None:
    before = fact(stack)
    with traffic(stack, clients=4) as running:
        words = ("model", "upgrade", *revisions.next("--shift", "50,100", "--stage-seconds", "1"))
        died = ops_until(
            stack, *words, dies=lambda e: e.get("kind") == kind and e["event"] == moment
        )
        assert died.status == -9
        refused = ops(stack, "model", "upgrade", *revisions.next(), status=1)
        assert f"left an operation unfinished: {died.id}" in refused.output
        stopped = run_site(stack.lab)
        assert died.id in stopped.output, "site.yml ran into an unfinished operation"
        assert stopped.total("changed") == 0
        ops(stack, how, *(("--yes",) if how == "abort" else ()))
    assert_nothing_was_lost(running, least=20)
    if how == "abort":
        assert_serves(stack, before)
    else:
        assert fact(stack)["active"] != before["active"]
    assert_site_changes_nothing(stack)


def test_two_operators_at_once_one_is_refused_by_the_others_name(
    stack: Stack, revisions: Revisions
) -> None:
    said: list[Said] = []

    def second(event: dict[str, Any]) -> bool:
        if event.get("kind") == "engine.start" and event["event"] == "begin":
            said.append(ops(stack, "model", "upgrade", *revisions.next(), status=1))
        return False

    first = ops_until(
        stack, "model", "upgrade", *revisions.next("--why", "the new one", *STAGES), dies=second
    )
    assert first.status == 0, first.output
    assert "is at work on the fleet" in said[0].output
    assert "the new one" in said[0].output
    history = json.loads(
        subprocess.run(
            ["ops", "history", "--json", "-i", str(stack.lab.inventory)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
    )["operations"]  # fmt: skip
    assert history[0]["id"] == first.id
    assert history[0]["status"] == "done"
