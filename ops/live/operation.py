"""The fleet's running or unfinished operation, told in a few words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ops.errors import OpsError
from ops.operations.journal import Event, Operation, Status


@dataclass(frozen=True)
class OperationView:
    """An operation that has not ended.

    Attributes:
        status: `running`, `unfinished` (nobody works on it) or `stuck`.
        by: Who works on it, or did last.
        began: When it began, in seconds since the epoch; None before its first entry.
        step: The step that it is at, from 1; 0 before the first.
        steps: How many it has.
        done: How many are done and not brought back.
        back: Whether it is being undone.
        failure: Why, in the words of the step that failed.
    """

    id: str
    verb: str
    subject: str
    status: Status
    by: str
    why: str
    began: float | None
    step: int
    steps: int
    title: str
    done: int
    back: bool
    failure: str

    def as_record(self) -> dict[str, Any]:
        """All of it for programs."""
        return asdict(self)


def view(record: Mapping[str, Any] | None) -> OperationView | None:
    """Read what the keeper tells; None where all operations have ended."""
    if record is None:
        return None
    try:
        operation = Operation.from_record(record)
    except OpsError as error:
        return _unreadable(record, error.message)
    if operation.ended:
        return None
    steps = operation.plan.steps
    at = next((e["step"] for e in reversed(operation.entries) if "step" in e), None)
    owner = operation.owner
    return OperationView(
        id=operation.id,
        verb=operation.plan.verb,
        subject=operation.plan.subject,
        status=operation.status,
        by=f"{owner.get('who', '?')}@{owner.get('machine', '?')}",
        why=operation.plan.why,
        began=operation.entries[0]["at"] if operation.entries else None,
        step=0 if at is None else at + 1,
        steps=len(steps),
        title=steps[at].title if at is not None else "",
        done=len(operation.done()),
        back=operation.going_back,
        failure=operation.failure
        or next((str(e["why"]) for e in operation.entries if e["event"] == Event.STUCK), ""),
    )


def _unreadable(record: Mapping[str, Any], why: str) -> OperationView:
    """An operation of another version of Rackhand: that there is one must not be lost."""
    plan, status = record["plan"], Status.RUNNING if record["held"] else Status.UNFINISHED
    return OperationView(
        record["id"], str(plan.get("verb", "")), str(plan.get("subject", "")), status,
        by=str(record["owner"].get("who", "?")), why="", began=None, step=0,
        steps=0, title="", done=0, back=False, failure=why,
    )  # fmt: skip
