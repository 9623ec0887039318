"""What became of an operation, read from its journal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ops.operations.plan import Plan


class Event(StrEnum):
    """What an entry tells."""

    BEGIN = "begin"
    """A step is about to be done; without `done` behind it nobody knows how far it came."""
    DONE = "done"
    FAILED = "failed"
    """A step failed; from here on the operation is undone."""
    TURN = "turn"
    """An operator said to go back."""
    UNDO = "undo"
    UNDONE = "undone"
    STUCK = "stuck"
    """An undo failed; a person has to look."""
    TAKEN = "taken"
    """Somebody works on it: the beginning, or a resume or abort after a death."""
    END = "end"


class Status(StrEnum):
    """How an operation stands."""

    RUNNING = "running"
    UNFINISHED = "unfinished"
    """Nobody works on it: resume or abort it."""
    DONE = "done"
    ROLLED_BACK = "rolled back"
    STUCK = "stuck"


@dataclass(frozen=True)
class Operation:
    """A stored operation.

    Attributes:
        id: Its name.
        plan: What was to be done.
        entries: Its journal.
        held: Whether a process works on it right now.
        owner: Who works on it, or did last.
    """

    id: str
    plan: Plan
    entries: tuple[Mapping[str, Any], ...] = ()
    held: bool = False
    owner: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Operation:
        """Read what the keeper tells."""
        return cls(
            record["id"],
            Plan.from_record(record["plan"]),
            tuple(record["entries"]),
            bool(record["held"]),
            record["owner"] or {},
        )

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return any(entry["event"] == Event.END for entry in self.entries)

    @property
    def going_back(self) -> bool:
        """Whether it is being undone."""
        return any(entry["event"] in (Event.FAILED, Event.TURN) for entry in self.entries)

    @property
    def status(self) -> Status:
        """How it stands."""
        return status(self.entries, self.held)

    @property
    def failure(self) -> str:
        """Why it was turned back, in the words of the step that failed."""
        for entry in self.entries:
            if entry["event"] == Event.FAILED:
                return str(entry.get("why", ""))
        return ""

    def done(self) -> list[int]:
        """Steps that are done and not undone, in their order."""
        return [n for n, last in self._last().items() if last == Event.DONE]

    def touched(self) -> list[int]:
        """Steps that may have changed something and were not undone: what going back must undo."""
        return [n for n, last in self._last().items() if last != Event.UNDONE]

    def pending(self) -> list[int]:
        """Steps still to do; the first may be half done."""
        done = set(self.done())
        return [n for n in range(len(self.plan.steps)) if n not in done]

    def begun(self, step: int) -> bool:
        """Whether a step was begun before and its end is not known."""
        return self._last().get(step) == Event.BEGIN

    def detail(self, step: int) -> Mapping[str, Any]:
        """What a step noted for its undo and for those after it."""
        found: dict[str, Any] = {}
        for entry in self.entries:
            if entry.get("step") == step and entry.get("detail"):
                found |= entry["detail"]
        return found

    def _last(self) -> dict[int, Event]:
        """The last word on each step."""
        found: dict[int, Event] = {}
        for entry in self.entries:
            if "step" in entry:
                found[entry["step"]] = Event(entry["event"])
        return dict(sorted(found.items()))


def status(entries: Sequence[Mapping[str, Any]], held: bool) -> Status:
    """How an operation stands whose journal ends so."""
    for entry in reversed(entries):
        if entry["event"] == Event.END:
            return Status.ROLLED_BACK if entry.get("back") else Status.DONE
        if entry["event"] == Event.STUCK:
            return Status.STUCK
        if entry["event"] == Event.TAKEN:
            break
    return Status.RUNNING if held else Status.UNFINISHED
