"""Debian's version numbers, ordered as dpkg orders them (deb-version(7))."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

PIECE = re.compile(r"(\D*)(\d*)")
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">>": operator.gt,
}
Key = tuple[int, tuple[tuple[tuple[int, ...], int], ...], tuple[tuple[tuple[int, ...], int], ...]]


def version_key(version: str) -> Key:
    """What to sort a version by."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, hyphen, revision = rest.rpartition("-")
    if not hyphen:
        upstream, revision = rest, "0"
    return int(epoch), _pieces(upstream), _pieces(revision)


def satisfies(version: str, relation: str, other: str) -> bool:
    """Whether a version stands in a relation (`>=` …) to another; no relation always holds."""
    if not relation:
        return True
    return OPERATORS[relation](version_key(version), version_key(other))


def _pieces(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    found = [match.groups() for match in PIECE.finditer(text) if match[0]]
    return tuple((_order(words), int(number or 0)) for words, number in [*found, ("", "0")])


def _order(words: str) -> tuple[int, ...]:
    """A tilde sorts before the end, letters before everything else."""
    return (*(-1 if c == "~" else ord(c) + (0 if c.isalpha() else 256) for c in words), 0)
