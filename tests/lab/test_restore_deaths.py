"""An operator dies within a restore: another goes on or back, and nothing acknowledged is lost.

It writes docs/results/<date>-restore-deaths.md.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from operators import ops, ops_until, status_of, wait_until_free
from results import add_to_result
from stack import Lab, Stack
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from test_backup import say, threads, wait_for_backup

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

STEPS = ("stop_app", "flush", "restore", "put_back_files", "start_app", "begin")
MOMENTS = ("begin", "done", "say")
"""Before a step, after it, and in the middle of the one that tells how far it is."""
FREE_SECONDS = 10.0
HEADINGS = ("killed", "step", "then", "lock free after", "taken over in", "acknowledged", "missing")


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs, purpose="backup") as made:
        wait_for_backup(made)
        yield made


def at(step: str, moment: str) -> Callable[[dict[str, Any]], bool]:
    """Die when the journal, or the step itself, says this."""
    under_way = ""

    def now(event: dict[str, Any]) -> bool:
        nonlocal under_way
        if event["event"] == "begin":
            under_way = event["kind"].removeprefix("backup.")
        if under_way != step:
            return False
        return bool(event["event"] == moment)

    return now


CASES = [(step, moment) for step in STEPS for moment in MOMENTS[:2]] + [("restore", "say")]


@pytest.mark.parametrize(
    ("step", "moment", "how"),
    [(*case, ("resume", "abort")[number % 2]) for number, case in enumerate(CASES)],
)
def test_another_operator_goes_on_or_back_and_loses_nothing(
    stack: Stack, step: str, moment: str, how: str
) -> None:
    said = {say(stack, "remember the heron")}
    died = ops_until(stack, "restore", "--yes", dies=at(step, moment))
    assert died.status == -9, died.output[-4000:]
    free, left = wait_until_free(stack, died, FREE_SECONDS)
    began = time.monotonic()
    if left == "unfinished":
        ops(stack, how, *(("--yes",) if how == "abort" else ()))
    else:  # the journal's last word was written before the kill came
        assert (step, left) == (STEPS[-1], "done")
        how = "nothing was left to do"
    took = time.monotonic() - began
    stack.wait_until_ready()
    said.add(say(stack, "and the crane"))
    missing = said - threads(stack)
    assert not missing
    assert status_of(stack, died) == ("rolled back" if how == "abort" else "done")
    stack.lab.ssh("node1", "rm -rf /var/lib/postgresql/*/main.before-*")
    wait_for_backup(stack)
    add_to_result(
        "restore-deaths", "An operator killed within a restore", HEADINGS,
        [({"begin": "before", "done": "after", "say": "within"}[moment], step, how,
          f"{free:.1f} s", f"{took:.1f} s", str(len(said)), str(len(missing)))],
        "One lab host. SIGKILL to the command and its children; `ops resume` and `ops abort` in "
        "turn. What the restore does on the host goes on meanwhile as a unit of its own. "
        "Acknowledged: one thread before, one after; missing: not in PostgreSQL at the end.",
        key=2,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["resume", "abort"])
def test_in_place_leaves_no_copy_and_no_way_back_but_another_restore(
    stack: Stack, how: str
) -> None:
    said = say(stack, "remember the stork")
    time.sleep(1)
    moment = datetime.now(UTC)
    time.sleep(1)
    stack.sql("DELETE FROM app.threads")
    words = ("restore", "--to", moment.isoformat(), "--in-place", "--yes")
    died = ops_until(stack, *words, dies=at("restore", "say"))
    assert died.status == -9, died.output[-4000:]
    wait_until_free(stack, died, FREE_SECONDS)
    if how == "abort":
        aborted = ops(stack, "abort", "--yes", status=1)
        assert "the restore was in place" in aborted.output
        ops(stack, *words)
    else:
        ops(stack, "resume")
    stack.wait_until_ready()
    assert said in threads(stack)
    assert not stack.lab.ssh("node1", "ls -d /var/lib/postgresql/*/main.before-* || true")
    wait_for_backup(stack)
    assert_site_changes_nothing(stack)
