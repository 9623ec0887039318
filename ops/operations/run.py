"""Carry an operation out, take it up again, or bring all back; a record before and after each step.

The story: take the lock, store the plan, do step after step. A step that fails turns the operation
back: every step that may have changed something is undone, last first. Whoever takes an operation
up finds in its journal how far it came.
"""

from __future__ import annotations

import getpass
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Protocol

from ops.errors import OpsError
from ops.fleet.model import Fleet
from ops.operations import keeper
from ops.operations.journal import Event, Operation
from ops.operations.keeper import Hold, LockedError, LockLostError
from ops.operations.plan import Plan, Step
from ops.operations.work import Context, LastingError, Work, make_work

WAIT_POLL_SECONDS = 2.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Make = Callable[[Context, Step, Mapping[str, Any]], Work]


class PausedError(OpsError):
    """The operator asked to stop; the operation waits for a resume or an abort."""


class RolledBackError(OpsError):
    """A step failed and everything is as it was before."""


class StuckError(OpsError):
    """A step failed and not everything could be brought back."""


class Reporter(Protocol):
    """Who is told what goes on."""

    def opened(self, operation: Operation, how: str) -> None:
        """The lock is ours; `how` is begin, resume or abort."""

    def step(self, number: int, step: Step, event: Event, seconds: float, why: str) -> None:
        """A step begins, ends, fails, is undone."""

    def say(self, words: str) -> None:
        """What goes on within a step."""


class Ledger(Protocol):
    """Where entries go: the keeper's journal."""

    def append(self, event: str, **fields: Any) -> None:
        """Add an entry; on the disk when it returns. `Event.END` closes the operation."""


@dataclass
class StopFlag:
    """Whether the operator asked to stop at the next safe point."""

    set: bool = False


class Runner:
    """Works on one operation whose lock is held.

    Args:
        fleet: The fleet.
        operation: As its journal has it.
        ledger: Its journal.
        reporter: Who is told.
        flag: Looked at between steps.
        make: Finds the work of a step.
    """

    def __init__(
        self,
        fleet: Fleet,
        operation: Operation,
        ledger: Ledger,
        reporter: Reporter,
        flag: StopFlag,
        make: Make = make_work,
    ) -> None:
        self._fleet = fleet
        self.operation = operation
        self._ledger = ledger
        self._reporter = reporter
        self._flag = flag
        self._make = make

    def forward(self) -> Operation:
        """Do what is pending; turn back at the first failure.

        Raises:
            RolledBackError, StuckError: A step failed.
            PausedError: The operator asked to stop.
            LockLostError: The line to the keeper broke.
        """
        for number in self._to_do():
            self._may_stop(number)
            try:
                self._do(number)
            except LockLostError:
                raise
            except Exception as error:
                why = str(error) or repr(error)
                self._write(Event.FAILED, step=number, why=why)
                self._tell(number, Event.FAILED, why=why)
                became = "everything was brought back"
                try:
                    self.backward()
                except LastingError as lasting:
                    became = str(lasting)
                raise RolledBackError(
                    f"{self._step(number).title}: {why}\n{became}",
                    place=f"operation {self.operation.id}",
                    cure=f"ops show {self.operation.id} tells it step by step",
                ) from error
        self._write(Event.END, back=False)
        return self.operation

    def backward(self) -> Operation:
        """Undo what may have changed, last first; one host that is lost does not hold up others.

        Raises:
            StuckError: Something could not be undone; the operation stays open.
            LastingError: Something never can be; the operation has ended.
        """
        stuck: dict[str, str] = {}
        lasting: list[str] = []
        for number in reversed(self.operation.touched()):
            step = self._step(number)
            if step.host in stuck:
                continue
            self._write(Event.UNDO, step=number)
            self._tell(number, Event.UNDO)
            began, why = time.monotonic(), ""
            try:
                self._work(number).undo()
            except LockLostError:
                raise
            except LastingError as error:
                lasting.append(why := str(error))
            except Exception as error:
                stuck[step.host] = why = str(error) or repr(error)
                self._write(Event.STUCK, step=number, why=why)
                self._tell(number, Event.STUCK, why=why)
                continue
            self._write(Event.UNDONE, step=number, **({"why": why} if why else {}))
            self._tell(number, Event.UNDONE, time.monotonic() - began, why)
        if stuck:
            raise StuckError(
                "not everything could be brought back:\n"
                + "\n".join(f"  {host or 'here'}: {why}" for host, why in stuck.items()),
                place=f"operation {self.operation.id}",
                cure=f"mend that, then: ops resume {self.operation.id}",
            )
        self._write(Event.END, back=True)
        if lasting:
            raise LastingError(
                "the rest was brought back:\n" + "\n".join(f"  {why}" for why in lasting),
                place=f"operation {self.operation.id}",
            )
        return self.operation

    def turn(self) -> None:
        """Note that an operator wants it undone."""
        if not self.operation.going_back:
            self._write(Event.TURN)

    def _to_do(self) -> list[int]:
        """What is pending, and all of the control machine: another one may have done it."""
        pending = self.operation.pending()
        return [n for n, s in enumerate(self.operation.plan.steps) if n in pending or not s.host]

    def _do(self, number: int) -> None:
        began, work = time.monotonic(), self._work(number)
        again = self.operation.begun(number)
        self._write(Event.BEGIN, step=number)
        self._tell(number, Event.BEGIN)
        if not (again and work.holds()):
            work.do()
        seconds = time.monotonic() - began
        self._write(Event.DONE, step=number, seconds=round(seconds, 3))
        self._tell(number, Event.DONE, seconds)

    def _work(self, number: int) -> Work:
        def note(detail: Mapping[str, Any]) -> None:
            self._write(Event.BEGIN, step=number, detail=dict(detail))

        context = Context(self._fleet, self.operation.id, self._reporter.say, note)
        return self._make(context, self._step(number), self.operation.detail(number))

    def _may_stop(self, number: int) -> None:
        if self._flag.set:
            name = self.operation.id
            raise PausedError(
                f"stopped before step {number + 1}, {self._step(number).title}; "
                f"{len(self.operation.done())} of {len(self.operation.plan.steps)} are done",
                place=f"operation {name}",
                cure=f"ops resume {name}, or ops abort {name}",
            )

    def _write(self, event: Event, **fields: Any) -> None:
        self._ledger.append(event, **fields)
        entry = {"event": str(event), **fields}
        self.operation = replace(self.operation, entries=(*self.operation.entries, entry))

    def _step(self, number: int) -> Step:
        return self.operation.plan.steps[number]

    def _tell(self, number: int, event: Event, seconds: float = 0.0, why: str = "") -> None:
        self._reporter.step(number, self._step(number), event, seconds, why)


def begin(fleet: Fleet, plan: Plan, reporter: Reporter, *, wait_seconds: float = 0.0) -> Operation:
    """Carry out a plan.

    Args:
        fleet: The fleet.
        plan: What to do.
        reporter: Who is told.
        wait_seconds: How long to wait for another operator's operation to end.

    Raises:
        LockedError: Another operator is at work, or left an operation unfinished.
        RolledBackError, StuckError, PausedError, LockLostError: As `Runner` says.
    """
    name = name_of(plan)
    with _hold(fleet, name, plan.why or f"{plan.verb} {plan.subject}", wait_seconds) as hold:
        hold.begin(plan)
        operation = Operation(name, plan, held=True)
        hold.append(Event.TAKEN, how="begin")
        reporter.opened(operation, "begin")
        with _stoppable(reporter) as flag:
            return Runner(fleet, operation, hold, reporter, flag).forward()


def resume(fleet: Fleet, name: str, reporter: Reporter) -> Operation:
    """Go on with an operation, forward or back as its journal has it.

    Raises:
        OpsError: It ended already, or as `begin`.
    """
    return _take_up(fleet, name, reporter, abort=False)


def abort(fleet: Fleet, name: str, reporter: Reporter) -> Operation:
    """Bring back what an unfinished operation changed.

    Raises:
        OpsError: It ended already, or as `begin`.
    """
    return _take_up(fleet, name, reporter, abort=True)


def _take_up(fleet: Fleet, name: str, reporter: Reporter, *, abort: bool) -> Operation:
    how = "abort" if abort else "resume"
    with _hold(fleet, name, how, 0.0) as hold:
        operation = keeper.read(fleet, name)
        if operation.ended:
            raise OpsError(
                f"operation {name} has ended: {operation.status}", cure=f"ops show {name}"
            )
        hold.append(Event.TAKEN, how=how)
        reporter.opened(operation, how)
        with _stoppable(reporter) as flag:
            runner = Runner(fleet, operation, hold, reporter, flag)
            if abort:
                runner.turn()
            return runner.backward() if runner.operation.going_back else runner.forward()


@contextmanager
def _hold(fleet: Fleet, name: str, why: str, wait_seconds: float) -> Iterator[Hold]:
    owner = {"who": getpass.getuser(), "machine": socket.gethostname(), "why": why}
    deadline = time.monotonic() + wait_seconds
    while True:
        hold = Hold(fleet, name, owner)
        try:
            hold.__enter__()
            break
        except LockedError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(WAIT_POLL_SECONDS)
    try:
        yield hold
    finally:
        hold.__exit__(None, None, None)


@contextmanager
def _stoppable(reporter: Reporter) -> Iterator[StopFlag]:
    """Let Ctrl-C end the work at the next safe point; a second one ends it now."""
    flag = StopFlag()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if flag.set:
            raise KeyboardInterrupt
        flag.set = True
        reporter.say("stopping after this step (again: stop now)")

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def name_of(plan: Plan) -> str:
    """Name a new operation: sorts by time, tells what it is."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{plan.verb} {plan.subject}".lower()).strip("-")
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{words[:40]}"
