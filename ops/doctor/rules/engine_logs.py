"""Reads an engine's log: the table of cases, first match first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ops.doctor.finding import Case
from ops.doctor.rules import machine_cases, model_cases
from ops.doctor.rules.machine_cases import OOM_LOAD, OOM_PATTERNS, OOM_RUN, UNKNOWN

SERVED = r"Application startup complete|Uvicorn running on"
"""A line after which an engine had been serving."""


@dataclass(frozen=True)
class Told:
    """A case that a log told.

    Attributes:
        case: The case.
        line: The line that told it.
        values: What the line names.
    """

    case: Case
    line: str
    values: dict[str, str]


TABLE = (*model_cases.TABLE, *machine_cases.TABLE)
CASES = (*TABLE, UNKNOWN)
ERROR = re.compile(r"^.*?\b(?:\w+\.)*(\w*(?:Error|Exception|Interrupt)\b: .*)$", re.MULTILINE)
OTHERS = re.compile(
    r"Engine core initialization failed|See root cause above|WorkerProc initialization failed|"
    r"EngineCore encountered an issue"
)
"""What processes say of one another, also where one was told to end: never a cause."""
NOISE = re.compile(r"\b(?:INFO|DEBUG|WARNING) \d\d-\d\d \d\d:|^INFO: ")


def read_log(lines: Sequence[str]) -> Told | None:
    """Return the one cause that the log of a run tells; None where it tells no error.

    Args:
        lines: The log of one run of an engine, oldest first.
    """
    kept = [line for line in lines if not NOISE.search(line)]
    text = "\n".join(kept)
    served = re.search(SERVED, "\n".join(lines)) is not None
    for case in TABLE:
        patterns = case.patterns
        if case is OOM_RUN or case is OOM_LOAD:
            patterns = OOM_PATTERNS if (case is OOM_RUN) == served else ()
        for pattern in patterns:
            if found := re.search(pattern, text, re.MULTILINE):
                values = {k: v for k, v in found.groupdict().items() if v}
                return Told(case, line_of(text, found.end() - 1), values)
    errors = [e for e in ERROR.findall(text) if not OTHERS.search(e)]
    return Told(UNKNOWN, errors[-1], {"what": errors[-1][:160]}) if errors else None


def line_of(text: str, place: int) -> str:
    """Return the line at a place of a text."""
    start = text.rfind("\n", 0, place) + 1
    end = text.find("\n", place)
    return text[start : end if end >= 0 else len(text)]
