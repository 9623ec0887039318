"""The keeper's program itself, as a process of this machine."""

import fcntl
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.operations.journal import status
from ops.operations.keeper import PROGRAM

PLAN = {"format": 1, "verb": "test", "subject": "x", "summary": [], "warnings": [], "why": ""}


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM.read_text(), str(folder), *words]


def ask(folder: Path, *words: str) -> Any:
    done = subprocess.run(command(folder, *words), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class Holder:
    """A process that tries to hold the lock for an operation."""

    def __init__(self, folder: Path, name: str, who: str) -> None:
        owner = json.dumps({"id": name, "who": who, "machine": "desk", "why": "because"})
        self.process = subprocess.Popen(
            command(folder, "hold", owner), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.answer = self.hear()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def say(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return self.hear()

    def begin(self) -> None:
        self.say({"begin": {**PLAN, "steps": []}, "open": {"who": "ada", "machine": "desk"}})
        self.say({"append": {"event": "taken", "by": "ada@desk"}})


@contextmanager
def holding(folder: Path, name: str, who: str = "ada") -> Iterator[Holder]:
    holder = Holder(folder, name, who)
    try:
        yield holder
    finally:
        holder.process.kill()
        holder.process.wait()


def test_the_second_of_two_operators_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    with holding(tmp_path, "one") as first, holding(tmp_path, "two", "bob") as second:
        assert first.answer == {"held": True}
        assert second.answer["refused"] == "held"
        assert second.answer["owner"]["who"] == "ada"
        assert second.answer["owner"]["since"] == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_is_free_at_once_when_its_holder_dies(tmp_path: Path, way: int) -> None:
    with holding(tmp_path, "one") as first:
        first.begin()
        assert ask(tmp_path, "read", "one")["held"]
        first.process.send_signal(way)
        first.process.wait(5)
    found = ask(tmp_path, "read", "one")
    assert not found["held"]
    assert [entry["event"] for entry in found["entries"]] == ["taken"]


def test_the_lock_is_free_when_the_operators_line_ends(tmp_path: Path) -> None:
    with holding(tmp_path, "one") as first:
        assert first.process.stdin is not None
        first.process.stdin.close()
        first.process.wait(5)
        with holding(tmp_path, "two") as second:
            assert second.answer == {"held": True}


def test_an_unfinished_operation_lets_no_other_begin_but_itself_be_taken_up(tmp_path: Path) -> None:
    with holding(tmp_path, "one") as first:
        first.begin()
    with holding(tmp_path, "two") as second:
        assert second.answer["refused"] == "unfinished"
        assert second.answer["operation"]["id"] == "one"
    with holding(tmp_path, "one", "bob") as again:
        assert again.answer == {"held": True}
        again.say({"append": {"event": "end"}})
    with holding(tmp_path, "three") as third:
        assert third.answer == {"held": True}


def test_an_operation_that_ended_as_its_keeper_died_holds_nobody_up(tmp_path: Path) -> None:
    with holding(tmp_path, "one") as first:
        first.begin()
        before = (tmp_path / "open.json").read_text()
        first.say({"append": {"event": "end"}})
    assert not (tmp_path / "open.json").exists()
    (tmp_path / "open.json").write_text(before)
    with holding(tmp_path, "two") as second:
        assert second.answer == {"held": True}
    assert not (tmp_path / "open.json").exists()


def test_a_line_that_a_power_loss_cut_short_is_dropped_and_written_over(tmp_path: Path) -> None:
    with holding(tmp_path, "one") as first:
        first.begin()
    journal = tmp_path / "one" / "journal.jsonl"
    with journal.open("a") as stream:
        stream.write('{"event": "beg')
    assert len(ask(tmp_path, "read", "one")["entries"]) == 1
    with holding(tmp_path, "one") as again:
        again.say({"append": {"event": "begin", "step": 0}})
    assert [e["event"] for e in ask(tmp_path, "read", "one")["entries"]] == ["taken", "begin"]


def test_all_operations_are_listed_oldest_first(tmp_path: Path) -> None:
    for name in ("20260101-a", "20260102-b"):
        with holding(tmp_path, name) as holder:
            holder.begin()
            holder.say({"append": {"event": "end"}})
    assert [found["id"] for found in ask(tmp_path, "list")] == ["20260101-a", "20260102-b"]
    assert ask(tmp_path, "read", "20260103-c") is None


def test_whoever_only_looks_at_the_lock_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Timer(0.1, lock.close).start()
        with holding(tmp_path, "1") as holder:
            assert holder.answer == {"held": True}


@pytest.mark.parametrize(
    "told",
    [
        ["taken", "begin", "failed", "undo", "stuck", "undo", "undone"],
        ["taken", "begin", "failed", "undo", "stuck", "undone", "taken", "undo"],
        ["taken", "begin", "failed", "undo", "undone", "end"],
        ["taken", "begin", "done", "begin"],
    ],
    ids=["stuck", "taken up again", "rolled back", "died"],
)
def test_the_list_tells_how_an_operation_stands_as_its_whole_journal_does(
    tmp_path: Path, told: list[str]
) -> None:
    with holding(tmp_path, "one") as first:
        first.begin()
        for event in told[1:]:
            first.say({"append": {"event": event, "back": True}})
    (listed,), whole = ask(tmp_path, "list"), ask(tmp_path, "read", "one")
    assert len(whole["entries"]) == len(told)
    assert status(listed["entries"], held=False) == status(whole["entries"], held=False)
    assert listed["entries"][-1] == whole["entries"][-1]
