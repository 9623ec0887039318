"""Moments at which a fault strikes: at rest, under load, or in the middle of an operator's work.

A moment is a context: entered, its work is under way at the named point; `finish` waits for its
end and brings what the fault left unfinished to one, as an operator would.
"""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from operators import Said, ops, ops_until
from revisions import Revisions
from stack import Stack, run_site

BEGIN_SECONDS = 180.0
"""The work must have come to its point by then."""
RESUMES = 3
SITE_POINT = "engine"
"""The role in whose tasks a run of site.yml is struck: in the middle of the play."""


@dataclass
class Moment:
    """Work that goes on; `told` says what became of it."""

    stack: Stack
    loaded: bool = True
    told: str = ""

    def finish(self) -> None:
        """Nothing goes on at rest or under load."""


@dataclass
class Operation(Moment):
    """An operation of `ops`, struck when a step of some kind begins."""

    words: tuple[str, ...] = ()
    kind: str = ""
    said: list[Said] = field(default_factory=list)
    at_point: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, and return when it is at its point."""

        def watch(event: dict[str, Any]) -> bool:
            if event.get("kind") == self.kind and event["event"] == "begin":
                self.at_point.set()
            return False

        def work() -> None:
            self.said.append(ops_until(self.stack, *self.words, dies=watch))
            self.at_point.set()

        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert self.at_point.wait(BEGIN_SECONDS), f"{self.words} did not come to {self.kind}"

    def finish(self) -> None:
        """Wait for it; what it left unfinished is resumed."""
        assert self.thread is not None
        self.thread.join(600)
        (said,) = self.said
        self.told = {0: "done"}.get(said.status, "went back by itself")
        for _ in range(RESUMES):
            left = ops(self.stack, "resume", status=None)
            if "no operation" in left.output or "nothing" in left.output:
                return
            self.told = "resumed"
            if left.status == 0:
                return
        raise AssertionError(f"{said.output[-3000:]}\n{left.output[-3000:]}")


@dataclass
class Site(Moment):
    """A run of site.yml; where the fault failed it, it is run again."""

    process: "subprocess.Popen[str] | None" = None
    thread: threading.Thread | None = None
    at_point: threading.Event = field(default_factory=threading.Event)
    lines: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Begin, and return when it is at its point."""
        self.process = subprocess.Popen(
            ["ansible-playbook", "-i", str(self.stack.lab.inventory), "playbooks/site.yml"],
            cwd=self.stack.lab.checkout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=self.stack.lab.environment,
        )  # fmt: skip

        def read() -> None:
            assert self.process is not None
            assert self.process.stdout is not None
            for line in self.process.stdout:
                self.lines.append(line)
                if line.startswith(f"TASK [{SITE_POINT} :"):
                    self.at_point.set()
            self.process.wait()
            self.at_point.set()

        self.thread = threading.Thread(target=read)
        self.thread.start()
        assert self.at_point.wait(BEGIN_SECONDS), "".join(self.lines)[-3000:]

    def finish(self) -> None:
        """Wait for it, and run it again if it failed."""
        assert self.thread is not None
        assert self.process is not None
        self.thread.join(600)
        self.told = "done"
        if self.process.returncode != 0:
            again = run_site(self.stack.lab)
            assert again.status == 0, again.output[-4000:]
            self.told = "failed, its next run ended well"


Maker = Callable[[Stack, Revisions], Moment]


def _upgrade(stack: Stack, revisions: Revisions) -> Moment:
    several = len(stack.fleet.group("gpu")) > 1
    canary = ("--canary", "node4") if several else ()
    words = revisions.next(*canary, "--shift", "50,100", "--stage-seconds", "3")
    return Operation(stack, words=("model", "upgrade", *words), kind="engine.shift")


def _restart(stack: Stack, _: Revisions) -> Moment:
    words = ("restart", "engine", "demo", "--strategy", "in-place", "--yes")
    return Operation(stack, words=words, kind="restart.engine")


def _backup(stack: Stack, _: Revisions) -> Moment:
    return Operation(stack, words=("backup", "run", "--full", "--yes"), kind="backup.run")


MOMENTS: dict[str, Maker] = {
    "idle": lambda stack, _: Moment(stack, loaded=False),
    "load": lambda stack, _: Moment(stack),
    "upgrade": _upgrade,
    "restart": _restart,
    "site": lambda stack, _: Site(stack),
    "backup": _backup,
}


@contextlib.contextmanager
def moment(name: str, stack: Stack, revisions: Revisions) -> Iterator[Moment]:
    """Enter a moment."""
    made = MOMENTS[name](stack, revisions)
    if isinstance(made, Operation | Site):
        made.start()
    yield made
    made.finish()
