"""The app's figures of usage, summed up as a person asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

BY = ("key", "day", "feature", "model")
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "engine_seconds")


def sum_up(rows: Iterable[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """Return one row per value of a column, largest first; days in their order.

    Args:
        rows: As `agent-app usage --json` prints them.
        by: One of `BY`.
    """
    sums: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = str(row[by] or "")
        entry = sums.setdefault(name, {by: name, **dict.fromkeys(COUNTS, 0)})
        for count in COUNTS:
            entry[count] += row[count]
    found = [{**entry, "total_tokens": tokens(entry)} for entry in sums.values()]
    for entry in found:
        entry["engine_seconds"] = round(entry["engine_seconds"], 3)
    if by == "day":
        return sorted(found, key=lambda entry: str(entry[by]))
    return sorted(found, key=lambda entry: (-entry["total_tokens"], str(entry[by])))


def tokens(row: Mapping[str, Any]) -> int:
    """Return the tokens of a row, prompt and answer together."""
    return int(row["prompt_tokens"]) + int(row["completion_tokens"])
