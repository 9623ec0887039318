"""An operator is killed before and after every step of every strategy; another one takes over.

The steps are those of the plan, so that none is forgotten. Each test writes its part of
docs/results/<date>-operator-dies.md.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from checkouts import another_checkout, hand_over
from operators import ops, ops_until, status_of, wait_until_free
from results import add_to_result
from revisions import Revisions, serves
from stack import Lab, Stack
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from traffic import Traffic, traffic

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(5400)]

FREE_SECONDS = 5.0
"""A lock whose owner was killed is free by then."""
STAGES = ("--shift", "50,100", "--stage-seconds", "1")
OPENED = "the lock is taken"
SUITE = """
name: echo
repetitions: 2
cases: [{id: echo, prompt: The word is heron, graders: [{contains: [heron]}]}]
"""
HEADINGS = (
    "killed", "step", "then", "lock free after", "taken over in", "it says", "requests", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Strategy:
    """What the operator who dies was about; `{suite}` stands for the file of an eval suite."""

    name: str
    verb: str
    words: tuple[str, ...] = ()
    hosts: int = 1


ONLY = os.environ.get("RACKHAND_DEATHS", "")
"""Die at steps whose name begins so, as `engine.retire`: to go on where a run was cut."""
STRATEGIES = (
    Strategy("blue-green", "upgrade", ("--strategy", "blue-green", "--eval", "{suite}", *STAGES)),
    Strategy("warm rollback", "rollback"),
    Strategy("swap", "upgrade", ("--strategy", "swap")),
    Strategy("host by host", "upgrade", ("--canary", "node4", *STAGES), hosts=4),
)


@dataclass
class Deaths:
    """All the deaths of one strategy at one moment of its steps: `begin` or `done`."""

    strategy: Strategy
    moment: str
    stack: Stack
    other: Stack
    revisions: Revisions
    suite: Path
    rows: list[tuple[str, ...]] = field(default_factory=list)
    died: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Die at each step that a plan has, until there is none left."""
        self._upgrade()  # leaves an engine ready beside: the plans then have to clear it
        again = 0
        while True:
            words = self._words()
            steps = self._plan(words)
            self.known |= {step for step in steps if step.startswith(ONLY)}
            left = [step for step in steps if step in self.known - self.died]
            if left:
                self._die(words, steps, left[0])
            elif missing := self.known - self.died:
                again += 1
                assert again < 3, f"no plan has {missing} any more"
                self._upgrade()
            else:
                return

    def _words(self) -> list[str]:
        chosen = [word.format(suite=self.suite) for word in self.strategy.words]
        if self.strategy.verb == "upgrade":
            return ["model", "upgrade", *self.revisions.next(*chosen)]
        return ["model", "rollback", "demo", "--yes", *chosen]

    def _plan(self, words: list[str]) -> list[str]:
        """Name the plan's steps: by kind and host, and the how manieth of these."""
        told = ops(self.stack, *words, "--dry-run", "--json").output
        steps: list[dict[str, Any]] = json.loads(told)["steps"]
        seen: Counter[str] = Counter()
        names = [OPENED] if self.moment == "begin" else []
        for step in steps:
            name = f"{step['kind']} {step['host']}".strip()
            seen[name] += 1
            names.append(f"{name}, {seen[name]}" if seen[name] > 1 else name)
        return names

    def _upgrade(self) -> None:
        """Move on undisturbed."""
        words = self.revisions.next("--shift", "100", "--stage-seconds", "0")
        ops(self.stack, "model", "upgrade", *words)
        hand_over(self.stack, self.other)

    def _die(self, words: list[str], steps: list[str], step: str) -> None:
        how = ("resume", "abort")[(len(self.died) + (self.moment == "done")) % 2]
        before = self._serves()
        number = steps.index(step) - steps.count(OPENED)

        def now(event: dict[str, Any]) -> bool:
            if step == OPENED:
                return bool(event["event"] == "opened")
            return event["event"] == self.moment and event.get("step") == number

        with traffic(self.stack, clients=2) as running:
            died = ops_until(self.stack, *words, dies=now)
            assert died.status == -9, died.output[-4000:]
            free, status = wait_until_free(self.other, died, FREE_SECONDS)
            began = time.monotonic()
            if status == "unfinished":
                ops(self.other, how, *(("--yes",) if how == "abort" else ()))
            else:  # the journal's last word was written before the kill came
                how = "nothing was left to do"
                hand_over(self.stack, self.other)
            took = time.monotonic() - began
        ended = status_of(self.other, died)
        self._judge(how, ended, before, running)
        self.rows.append(
            (
                f"{self.strategy.name}, {'before' if self.moment == 'begin' else 'after'}",
                step,
                how,
                f"{free:.1f} s",
                f"{took:.1f} s",
                ended,
                str(len(running.answers)),
                str(len(running.failures)),
            )
        )
        print(" | ".join(self.rows[-1]))
        self.died.add(step)
        hand_over(self.other, self.stack)

    def _serves(self) -> dict[str, Any]:
        return {h.name: serves(self.stack, h.name) for h in self.stack.fleet.group("gpu")}

    def _judge(self, how: str, ended: str, before: dict[str, Any], running: Traffic) -> None:
        assert running.failures == [], running.told()
        assert running.answers
        assert ended == ("rolled back" if how == "abort" else "done")
        now = self._serves()
        if how == "abort":
            assert now == before
        else:
            for host, found in now.items():
                assert found["revision"] != before[host]["revision"]
                assert found["traffic"] == {found["active"]: 100}
        # The layer that operations touch; all of it at the end of the test.
        assert_site_changes_nothing(self.other, "--tags", "engine")


@pytest.fixture(scope="module", params=STRATEGIES, ids=lambda strategy: strategy.name)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    chosen: Strategy = request.param
    return chosen


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab], strategy: Strategy) -> Iterator[Stack]:
    with stand_in_stack(labs, hosts=strategy.hosts) as made:
        yield made


@pytest.mark.parametrize("moment", ["begin", "done"], ids=["before", "after"])
def test_whoever_takes_over_finds_every_step_as_the_journal_says(
    stack: Stack, strategy: Strategy, moment: str, tmp_path: Path
) -> None:
    suite = tmp_path / "echo.yml"
    suite.write_text(SUITE)
    other = another_checkout(stack, tmp_path)
    deaths = Deaths(strategy, moment, stack, other, Revisions(stack, tmp_path), suite)
    try:
        deaths.run()
    finally:
        write(deaths)
    assert len(deaths.died) >= (1 if ONLY else 4)
    assert_site_changes_nothing(stack)


def write(deaths: Deaths) -> None:
    add_to_result(
        "operator-dies",
        "An operator killed before and after every step",
        HEADINGS,
        deaths.rows,
        "SIGKILL to the command and its children, at the journal's own word on the step. Another "
        "checkout, at another path and with the inventory of before, goes on or back by `ops "
        "resume` and `ops abort` in turn; then the hosts serve what it says, `ops history` tells "
        "its end, and `site.yml` from there changes nothing. Two clients ask through the edge "
        "meanwhile. Lock free: the first look that finds it so, which takes a second itself.",
        key=2,
    )
