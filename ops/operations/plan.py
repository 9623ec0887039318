"""What an operation will do, as data: printed, stored on the keeper, read back elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ops.errors import OpsError

FORMAT = 1
"""Of the stored plan; a checkout that knows another one refuses to go on with it."""


@dataclass(frozen=True)
class Step:
    """One step: what kind of work, where, and with which values.

    Attributes:
        kind: Names the class that does it.
        host: The host's name; empty for the control machine.
        values: JSON values, everything the work needs.
        title: For people.
    """

    kind: str
    host: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """An operation before it begins.

    Attributes:
        verb: `model upgrade`, `restart engine`.
        subject: What it is about: a model, a group.
        why: The operator's words, may be empty.
        summary: Lines for people: strategy, from and to, what is held up meanwhile.
        warnings: What to know before saying yes.
        steps: In their order.
    """

    verb: str
    subject: str
    summary: tuple[str, ...]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    why: str = ""

    def as_record(self) -> dict[str, Any]:
        """The plan for programs and for the keeper."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Plan:
        """Read a stored plan.

        Raises:
            OpsError: It was written by a checkout whose plans are other ones.
        """
        if record.get("format") != FORMAT:
            raise OpsError(
                f"this operation was planned in format {record.get('format')}, "
                f"this checkout knows format {FORMAT}",
                cure="resume it with the version of Rackhand that began it",
            )
        return cls(
            verb=record["verb"],
            subject=record["subject"],
            summary=tuple(record["summary"]),
            steps=tuple(Step(**step) for step in record["steps"]),
            warnings=tuple(record["warnings"]),
            why=record["why"],
        )
