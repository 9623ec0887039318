"""Figures as a person reads them; `-` is what nobody can tell."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise


def known(value: int | None, unit: str) -> str:
    """A reading."""
    return "-" if value is None else f"{value} {unit}"


def whole(value: float | None) -> str:
    """A count."""
    return "-" if value is None else f"{value:.0f}"


def number(value: float | None) -> str:
    """A rate: one digit behind the point below ten."""
    if value is None:
        return "-"
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def seconds(value: float | None) -> str:
    """A time."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def percent(value: float | None, digits: int = 0) -> str:
    """A share of one."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def clock(at: float) -> str:
    """A time of day in UTC, as ops show has it."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def span(length: float) -> str:
    """A length of time in its two largest units."""
    whole_seconds = int(length)
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for (size, name), (below, small) in pairwise(units):
        if whole_seconds >= size:
            rest = whole_seconds % size // below
            return f"{whole_seconds // size} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole_seconds} s"
