"""Chains what waits in the outbox, one sealer at a time whoever runs.

Requests only add a row to `app.audit_outbox`, mostly in a statement that they need anyway; what
takes turns (numbers, hashes, encryption) happens here, a moment later and outside of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from agent_app.audit.chain import COLUMNS, START, Chained, Head, canonical, digest
from agent_app.audit.vault import Vault, encrypt, make_data_key
from agent_app.state.audit import read_details

LOCK_KEY = 0x41756469  # "Audi"
BATCH = 500

_WAITING = "SELECT * FROM app.audit_outbox ORDER BY id LIMIT %s"
_ERASED = "SELECT DISTINCT subject_id FROM app.erasures WHERE subject_id = ANY(%s)"


def read_head(connection: psycopg.Connection[Any]) -> Head:
    """Return the newest entry; number 0 where there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "SELECT number, hash FROM audit.entries ORDER BY number DESC LIMIT 1"
        ).fetchone()
    return Head(row["number"], row["hash"]) if row else START


def seal_batch(connection: psycopg.Connection[Any], vault: Vault, *, most: int = BATCH) -> int:
    """Move entries from the outbox into the chain, in one transaction.

    Returns:
        How many; -1 where another sealer is at work.

    Raises:
        ConfigError: The data keys were wrapped by another secret.
    """
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s) AS ours", (LOCK_KEY,))
        row = cursor.fetchone()
        if row is None or not row["ours"]:
            return -1
        waiting = cursor.execute(_WAITING, (most,)).fetchall()
        if not waiting:
            return 0
        keys = _data_keys(cursor, vault, waiting)
        chained = _chain(waiting, keys, read_head(connection))
        with cursor.copy(f"COPY audit.entries ({COLUMNS}) FROM STDIN") as copy:
            for entry in chained:
                copy.write_row([getattr(entry, name) for name in COLUMNS.split(", ")])
        cursor.execute(
            "DELETE FROM app.audit_outbox WHERE id = ANY(%s)", ([row["id"] for row in waiting],)
        )
        return len(waiting)


def subject_of(key_id: UUID | None, thread_id: UUID | None) -> UUID | None:
    """Return whose data key seals an entry: the thread's, or else the API key's."""
    return thread_id or key_id


def _chain(waiting: Sequence[dict[str, Any]], keys: dict[UUID, bytes], head: Head) -> list[Chained]:
    chained = []
    for row in waiting:
        subject = subject_of(row["key_id"], row["thread_id"])
        body = canonical(
            {"correlation": row["correlation"], "details": read_details(row["details"])}
        )
        entry = Chained(
            number=head.number + 1,
            at=row["at"],
            kind=row["kind"],
            actor=row["actor"],
            key_id=row["key_id"],
            thread_id=row["thread_id"],
            run_id=row["run_id"],
            body=body if subject is None else None,
            sealed=None if subject is None else encrypt(keys[subject], body.encode(), subject),
            previous=head.hash,
        )
        entry = replace(entry, hash=digest(entry.content()))
        chained.append(entry)
        head = Head(entry.number, entry.hash)
    return chained


def _data_keys(
    cursor: psycopg.Cursor[dict[str, Any]], vault: Vault, waiting: Sequence[dict[str, Any]]
) -> dict[UUID, bytes]:
    """Return the data key of each subject, making those that are not there.

    A late entry of an erased subject is sealed by a key that nobody keeps.
    """
    owners: dict[UUID, dict[str, Any]] = {}
    for row in waiting:
        subject = subject_of(row["key_id"], row["thread_id"])
        if subject is not None:
            owners.setdefault(subject, row)
    cursor.execute(
        "SELECT subject, wrapped FROM app.audit_keys WHERE subject = ANY(%s)", (list(owners),)
    )
    keys = {row["subject"]: vault.unwrap(row["wrapped"], row["subject"]) for row in cursor}
    missing = {subject: row for subject, row in owners.items() if subject not in keys}
    if not missing:
        return keys
    names = {row[part] for row in missing.values() for part in ("key_id", "thread_id")} - {None}
    cursor.execute(_ERASED, (list(names),))
    erased = {row["subject_id"] for row in cursor}
    kept = []
    for subject, row in missing.items():
        keys[subject] = make_data_key()
        if not erased & {row["key_id"], row["thread_id"]}:
            wrapped = vault.wrap(keys[subject], subject)
            kept.append((subject, row["key_id"], row["thread_id"], wrapped))
    cursor.executemany(
        "INSERT INTO app.audit_keys (subject, key_id, thread_id, wrapped) VALUES (%s, %s, %s, %s)",
        kept,
    )
    return keys
