"""What was decided and done, a line of JSON each, on the disk before anything follows from it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from ops.operations.keeper_program import append, entries
from ops.remedy.policy import Action

MOST_BYTES = 32 << 20
"""Of the file; the older half goes then."""


class Verdict(StrEnum):
    """What a decision says."""

    ACT = "act"
    DRY_RUN = "dry_run"
    SKIP = "skip"
    REPLACE = "replace"
    """Nothing that remediation may do cures it: the GPU is to be replaced by a person."""


class Outcome(StrEnum):
    """How an action ended."""

    DONE = "done"
    ROLLED_BACK = "rolled back"
    STUCK = "stuck"
    FAILED = "failed"
    BUSY = "busy"
    NOT_BEGUN = "not begun"
    """We died before the operation was stored: nothing was changed."""
    ABANDONED = "abandoned"
    """We died in the middle, and may not go on: a person has to."""


NOTHING_DONE = (Outcome.BUSY, Outcome.NOT_BEGUN)


@dataclass(frozen=True)
class Record:
    """One decision, and what came of it.

    Attributes:
        id: Its name, which the operation's reason carries.
        at: When it was decided.
        key: Of the alert's occurrence.
        cause: Of what is wrong, whenever the alert fires.
        alert: The alert, told.
        code: Why, in a word: `last_engine`.
        reason: Why, in a sentence.
        operation: Of `ops history`; empty until it is known.
        outcome: None while an action goes on.
        why: What the operation said at its end.
    """

    id: str
    at: datetime
    key: str
    cause: str
    alert: str
    host: str
    gpu: int | None
    action: Action
    verdict: Verdict
    code: str
    reason: str
    operation: str = ""
    outcome: Outcome | None = None
    why: str = ""
    ended: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether an action was begun and its end is not recorded."""
        return self.verdict == Verdict.ACT and self.outcome is None

    @property
    def acted(self) -> bool:
        """Whether something was done, or may have been: what limits count."""
        return self.verdict == Verdict.ACT and self.outcome not in NOTHING_DONE

    def as_record(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "alert": self.alert,
            "host": self.host,
            "gpu": self.gpu,
            "action": self.action,
            "verdict": self.verdict,
            "code": self.code,
            "reason": self.reason,
            "operation": self.operation,
            "outcome": self.outcome,
            "why": self.why,
            "seconds": round((self.ended - self.at).total_seconds(), 1) if self.ended else None,
        }


def fold(lines: list[Mapping[str, Any]]) -> tuple[Record, ...]:
    """Put records together from their lines, in their order; what cannot be read is left out."""
    found: dict[str, Record] = {}
    for line in lines:
        try:
            _add(found, line)
        except (KeyError, TypeError, ValueError):
            continue
    return tuple(found.values())


def _add(found: dict[str, Record], line: Mapping[str, Any]) -> None:
    name, at = str(line["id"]), datetime.fromtimestamp(float(line["at"]), UTC)
    if line["event"] == "decided":
        gpu = line["gpu"]
        found[name] = Record(
            name, at, str(line["key"]), str(line["cause"]), str(line["alert"]), str(line["host"]),
            None if gpu is None else int(gpu), Action(line["action"]), Verdict(line["verdict"]),
            str(line["code"]), str(line["reason"]),
        )  # fmt: skip
    elif line["event"] == "operation":
        found[name] = replace(found[name], operation=str(line["operation"]))
    elif line["event"] == "ended":
        found[name] = replace(
            found[name], outcome=Outcome(line["outcome"]), why=str(line["why"]), ended=at
        )


class Records:
    """The file, and what it says.

    Args:
        path: `records.jsonl`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._shorten()
        self._found = {record.id: record for record in fold(read_lines(path))}

    @property
    def all(self) -> tuple[Record, ...]:
        """Oldest first."""
        return tuple(self._found.values())

    @property
    def open(self) -> tuple[Record, ...]:
        """Actions whose end is not recorded."""
        return tuple(record for record in self.all if record.open)

    def decided(self, record: Record) -> None:
        """Write a decision; an action may begin when this returns."""
        self._write(
            record.id,
            record.at,
            event="decided",
            **{
                name: getattr(record, name)
                for name in ("key", "cause", "alert", "host", "gpu", "action", "verdict", "code",
                             "reason")
            },
        )  # fmt: skip

    def operation(self, name: str, operation: str, at: datetime) -> None:
        """Write which operation an action became."""
        self._write(name, at, event="operation", operation=operation)

    def ended(self, name: str, outcome: Outcome, why: str, at: datetime) -> None:
        """Write how an action ended."""
        self._write(name, at, event="ended", outcome=outcome, why=why)

    def _write(self, name: str, at: datetime, **fields: Any) -> None:
        line = {"id": name, "at": at.timestamp(), **fields}
        append(self._path, line)
        _add(self._found, line)

    def _shorten(self) -> None:
        if not self._path.exists() or self._path.stat().st_size <= MOST_BYTES:
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        candidate = self._path.with_name(self._path.name + ".new")
        with candidate.open("w", encoding="utf-8") as stream:
            stream.writelines(lines[len(lines) // 2 :])
            stream.flush()
            os.fsync(stream.fileno())
        candidate.rename(self._path)


def read_lines(path: Path) -> list[Mapping[str, Any]]:
    """The lines of a file; one that a power loss cut short is not one."""
    try:
        return list(entries(path))
    except ValueError:  # one in the middle is broken: keep the others
        found = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in found if isinstance(line, dict)]
