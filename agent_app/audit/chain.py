"""An entry of the chain, its hash, and what can be wrong with a row of them."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

GENESIS = "0" * 64
"""What the first entry names as the hash before it."""


def canonical(document: object) -> str:
    """Return the one JSON text of a document: sorted keys, no spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(document: object) -> str:
    """Return the SHA-256 of a document's canonical text, in hex."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry: whoever keeps it elsewhere can tell a chain that was cut or forged."""

    number: int
    hash: str

    def __str__(self) -> str:
        """Return `NUMBER:HASH`, as `--head` takes it."""
        return f"{self.number}:{self.hash}"


START = Head(0, GENESIS)


@dataclass(frozen=True, slots=True)
class Chained:
    """An entry as `audit.entries` keeps it.

    `body` is canonical JSON; where the entry is tied to a key or thread it is `sealed` instead,
    and the hash is over the sealed bytes: the chain holds when their data key is destroyed.
    """

    number: int
    at: datetime
    kind: str
    actor: str
    key_id: UUID | None
    thread_id: UUID | None
    run_id: UUID | None
    body: str | None
    sealed: bytes | None
    previous: str
    hash: str = ""

    def content(self) -> dict[str, Any]:
        """Return what the hash is over."""
        return {
            "number": self.number,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "kind": self.kind,
            "actor": self.actor,
            "key_id": _text(self.key_id),
            "thread_id": _text(self.thread_id),
            "run_id": _text(self.run_id),
            "body": self.body,
            "sealed": None if self.sealed is None else base64.b64encode(self.sealed).decode(),
            "previous": self.previous,
        }


COLUMNS = "number, at, kind, actor, key_id, thread_id, run_id, body, sealed, previous, hash"


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Link:
    """What a check of the chain needs of an entry, from the database or from a file."""

    number: int
    previous: str
    hash: str
    computed: str


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry that does not hold."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found."""

    entries: int
    head: Head
    broken: Break | None = None


def walk(links: Iterable[Link], start: Head, *, pinned: Head | None = None) -> Verdict:
    """Check entries in order.

    Args:
        links: The entries.
        start: The entry before the first of them.
        pinned: A head that was noted elsewhere, which the chain must contain.
    """
    head, count, seen = start, 0, pinned is None or pinned == start
    for link in links:
        if why := _why_broken(link, head):
            return Verdict(count, head, Break(link.number, why))
        head, count = Head(link.number, link.hash), count + 1
        if pinned is not None and link.number == pinned.number:
            if link.hash != pinned.hash:
                return Verdict(count, head, Break(link.number, "it is not the pinned entry"))
            seen = True
    if pinned is not None and not seen:
        return Verdict(count, head, _why_unseen(pinned, start))
    return Verdict(count, head)


def _why_broken(link: Link, head: Head) -> str:
    if link.number != head.number + 1:
        return f"entry {head.number + 1} is missing"
    if link.previous != head.hash:
        return "it does not follow the entry before it"
    if link.hash != link.computed:
        return "it was altered: its hash is another"
    return ""


def _why_unseen(pinned: Head, start: Head) -> Break:
    if pinned.number < start.number:
        return Break(pinned.number, "the pinned head is older than what retention left")
    return Break(pinned.number, "the chain ends before the pinned head: its tail was cut")


def links_of(entries: Iterable[Chained]) -> Iterator[Link]:
    """Yield what a check needs of entries of the database."""
    for entry in entries:
        yield Link(entry.number, entry.previous, entry.hash, digest(entry.content()))
