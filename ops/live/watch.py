"""Asks all hosts at once, again and again, over connections that stay open."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from shlex import quote
from typing import Any, Protocol

from ops.errors import OpsError
from ops.fleet.model import SLOTS, Fleet, Host
from ops.live.operation import OperationView, view
from ops.live.state import UNITS, HostState, read_look, silent
from ops.remote import Line

PROGRAM = files("ops.live").joinpath("look_program.py")
ANSWER_SECONDS = 15.0
FIRST_SECONDS = 25.0
"""A connection may take 10 s, the answer 15 s."""
SILENCE_SECONDS = 45.0
"""After so long without a question the program on a host ends by itself, whatever became of us."""


class Asking(Protocol):
    """An open line to a host."""

    def ask(self, request: Any = None) -> Any:
        """Return the next look, or raise OpsError."""

    def close(self) -> None:
        """Close it."""


Open = Callable[[Host], Asking]


@dataclass(frozen=True)
class Look:
    """The fleet at one moment.

    Attributes:
        at: Seconds since the epoch, by this machine's clock.
        hosts: In the inventory's order.
        operation: What is running or was left unfinished.
    """

    at: float
    hosts: tuple[HostState, ...]
    operation: OperationView | None

    @property
    def well(self) -> bool:
        """Whether every host is, and no operation waits for a person."""
        left = self.operation is not None and self.operation.status != "running"
        return not left and all(state.well for state in self.hosts)


class Watch:
    """One thread a host, so that a host that hangs holds up no other.

    Args:
        fleet: The fleet.
        traffic: Whether to ask engines and the app how they do.
        every: Seconds between refreshes, at most; the hosts' programs end after some of them.
        opened: Opens a line to a host; default: over SSH.
        hosts: Of the fleet; default: all.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        traffic: bool,
        every: float = 0.0,
        opened: Open | None = None,
        hosts: Sequence[Host] = (),
    ) -> None:
        def over_ssh(host: Host) -> Asking:
            command = (
                f"python3 -c {quote(text)} {quote(json.dumps(wanted(fleet, host, traffic, every)))}"
            )
            return Line(fleet, host, command, ANSWER_SECONDS).__enter__()

        text = PROGRAM.read_text(encoding="utf-8")
        self._turn = threading.Condition()
        self._askers = [
            _Asker(host, opened or over_ssh, self._turn) for host in hosts or fleet.hosts
        ]

    def refresh(self, patience: float = FIRST_SECONDS) -> Look:
        """Ask every host; wait for those that answered the last time, and no longer than this.

        Args:
            patience: Seconds. A host that needs longer is told as one that does not answer.
        """
        deadline = time.monotonic() + patience
        with self._turn:
            awaited = [asker for asker in self._askers if asker.begin()]
            while any(asker.busy for asker in awaited):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._turn.wait(left)
            states = tuple(asker.state() for asker in self._askers)
        records = (state.operation for state in states if state.operation is not None)
        return Look(time.time(), states, view(next(records, None)))

    def close(self) -> None:
        """Close all connections; one that is just being opened is left to end by itself."""
        with self._turn:
            for asker in self._askers:
                asker.end()
            self._turn.notify_all()


class _Asker(threading.Thread):
    """Asks one host whenever it is told to; all its fields belong to whoever has the turn."""

    def __init__(self, host: Host, opened: Open, turn: threading.Condition) -> None:
        super().__init__(daemon=True, name=f"look {host.name}")
        self._host = host
        self._open = opened
        self._turn = turn
        self._line: Asking | None = None
        self._last: HostState | None = None
        self._since = 0.0
        self._over = False
        self.busy = False

    def begin(self) -> bool:
        """Have it ask, unless it still does; return whether that is worth waiting for."""
        if not self.is_alive():
            self.start()
        if self.busy:
            return False
        self.busy, self._since = True, time.monotonic()
        self._turn.notify_all()
        return self._last is None or not self._last.problem

    def state(self) -> HostState:
        """The newest answer; one that is missing for long is a problem."""
        if self.busy:
            waited = time.monotonic() - self._since
            told = self._last.problem if self._last else ""
            self._last = silent(self._host, told or f"no answer for {waited:.0f} s")
        assert self._last is not None
        return self._last

    def end(self) -> None:
        """Close the line."""
        self._over = True
        if self._line is not None:
            self._line.close()

    def run(self) -> None:
        """Ask whenever it is wanted."""
        while True:
            with self._turn:
                while not self.busy and not self._over:
                    self._turn.wait()
                if self._over:
                    return
            state = self._ask()
            with self._turn:
                self._last, self.busy = state, False
                self._turn.notify_all()

    def _ask(self) -> HostState:
        try:
            line = self._line or self._open(self._host)
            self._line = line
            return read_look(self._host, line.ask())
        except OpsError as error:
            problem = error.message
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{self._host.name} told what cannot be read: {error!r}"
        if self._line is not None:
            self._line.close()
            self._line = None
        return silent(self._host, problem)


@contextmanager
def watching(
    fleet: Fleet, *, traffic: bool, every: float = 0.0, hosts: Sequence[Host] = ()
) -> Iterator[Watch]:
    """Open a watch, and close it."""
    watch = Watch(fleet, traffic=traffic, every=every, hosts=hosts)
    try:
        yield watch
    finally:
        watch.close()


def survey(fleet: Fleet, *hosts: Host) -> Look:
    """Ask every host, or those, once; one that does not answer is a result, not an error."""
    with watching(fleet, traffic=False, hosts=hosts) as watch:
        return watch.refresh()


def wanted(fleet: Fleet, host: Host, traffic: bool, every: float) -> Mapping[str, Any]:
    """What the program on a host has to know."""
    keepers = fleet.group("data")
    return {
        "units": UNITS,
        "ports": {m.name: {slot: m.slot_port(slot) for slot in SLOTS} for m in host.models},
        "address": fleet.listen_address(host),
        "keeper": host in keepers[:1],
        "traffic": traffic,
        "silence_seconds": max(SILENCE_SECONDS, 3 * every),
    }
