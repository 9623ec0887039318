"""The chain in the database: read as of one moment, checked, its entries opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from cryptography.exceptions import InvalidTag
from psycopg.rows import dict_row

from agent_app.audit.chain import START, Chained, Head, Verdict, links_of, walk
from agent_app.audit.seal import subject_of
from agent_app.audit.vault import Vault, decrypt

FETCHED_ROWS = 2_000

_ENTRIES = """
SELECT entry.*, data_key.wrapped
FROM audit.entries AS entry
LEFT JOIN app.audit_keys AS data_key
    ON data_key.subject = coalesce(entry.thread_id, entry.key_id)
WHERE (%(since)s::timestamptz IS NULL OR entry.at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR entry.at < %(until)s)
    AND (%(key)s::uuid IS NULL OR entry.key_id = %(key)s)
ORDER BY entry.number
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which entries: of a time, of a key; None leaves a bound out."""

    since: datetime | None = None
    until: datetime | None = None
    key_id: UUID | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self == Chosen()


@contextmanager
def one_moment(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Let all reads within see the database as it is now, whoever writes meanwhile."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def read_entries(
    connection: psycopg.Connection[Any], chosen: Chosen
) -> Iterator[tuple[Chained, bytes | None]]:
    """Yield entries in their order, each with its subject's wrapped data key where there is one.

    Needs an open transaction, and little memory however many there are.
    """
    values = {"since": chosen.since, "until": chosen.until, "key": chosen.key_id}
    with connection.cursor("audit_entries", row_factory=dict_row) as cursor:
        cursor.itersize = FETCHED_ROWS
        cursor.execute(_ENTRIES, values)
        for row in cursor:
            wrapped = row.pop("wrapped")
            yield Chained(**row), wrapped


def read_start(connection: psycopg.Connection[Any]) -> Head:
    """Return the entry before the oldest one: what retention removed last, or the beginning."""
    row = connection.execute(
        "SELECT number, hash FROM audit.anchors ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return Head(row[0], row[1]) if row else START


def verify_chain(connection: psycopg.Connection[Any], *, pinned: Head | None = None) -> Verdict:
    """Check every entry of the database.

    Args:
        connection: Open, outside of a transaction.
        pinned: A head noted elsewhere; without one a chain cut at its end looks whole.
    """
    with one_moment(connection):
        entries = (entry for entry, _ in read_entries(connection, Chosen()))
        return walk(links_of(entries), read_start(connection), pinned=pinned)


class Opener:
    """Opens sealed entries, unwrapping each data key once."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._keys: dict[UUID, bytes] = {}

    def open(self, entry: Chained, wrapped: bytes | None) -> str | None:
        """Return an entry's body; None where its data key was destroyed."""
        subject = subject_of(entry.key_id, entry.thread_id)
        if entry.sealed is None or subject is None:
            return entry.body
        if wrapped is None:
            return None
        if subject not in self._keys:
            self._keys[subject] = self._vault.unwrap(wrapped, subject)
        try:
            return decrypt(self._keys[subject], entry.sealed, subject).decode()
        except InvalidTag:  # sealed under the key before an erasure
            return None
