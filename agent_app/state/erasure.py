"""Erases all that is a key's or a thread's, from every store, and gives a receipt.

Each step is a small transaction that also counts itself in `app.erasures`, and each finds its
rows anew: an erasure that was killed is finished by giving the command again, with one receipt.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from agent_app.access.key_admin import NOBODY
from agent_app.access.keys import CACHE_SECONDS
from agent_app.audit.seal import LOCK_KEY as SEAL_LOCK
from agent_app.audit.seal import read_head, seal_batch
from agent_app.audit.vault import Vault
from agent_app.errors import NotFound, ThreadBusy
from agent_app.state.audit import Entry, append_now
from agent_app.state.reach import (
    BATCH_ROWS,
    ORPHANS,
    Reach,
    Step,
    Subject,
    count_rows,
    delete_rows,
)
from agent_app.state.receipts import make_receipt
from agent_app.state.redis_names import RedisNames
from agent_app.state.runs import STOP_REQUESTED

LOCK_KEY = 0x45726173  # "Eras"
BATCH_THREADS = 50
POLL_SECONDS = 0.1
TICKETS = "app.tickets"


@dataclass(frozen=True, slots=True)
class Target:
    """Whose data."""

    kind: Literal["key", "thread"]
    id: UUID


@dataclass(frozen=True, slots=True)
class Options:
    """What may stay."""

    keep_tickets: bool = False
    """Tickets stay, with no link to the thread or key: where they are records of the business."""
    usage: Literal["sums", "delete"] = "sums"
    """Figures of usage stay as sums of a month and model, of nobody; or go."""

    def kept_tables(self) -> frozenset[str]:
        """Return the tables whose rows stay."""
        return frozenset({TICKETS}) if self.keep_tickets else frozenset()


class Eraser:
    """One erasure at a time.

    Args:
        connection: Of the app's role, with autocommit.
        redis_names: Both Redis databases.
        vault: Signs the receipt; seals what waits before its data key goes.
        by: Who asks for it.
        lease_seconds: Within so long every process has let go of a run it was told to stop.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        redis_names: RedisNames,
        vault: Vault,
        *,
        by: str,
        lease_seconds: float,
    ) -> None:
        self._connection = connection
        self._redis = redis_names
        self._vault = vault
        self._by = by
        self._lease = lease_seconds
        self._reach = Reach(connection)

    def preview(self, target: Target, options: Options) -> dict[str, int]:
        """Return how much there is, by store; nothing is changed."""
        found: dict[str, int] = {}
        for subject, steps in self._phases(target, self._threads_of(target), options):
            for step in steps:
                count = count_rows(self._connection, step, subject.values())
                found[step.table] = max(found.get(step.table, 0), count)
        found |= self._redis.count(self._ids_of(target))
        for step in self._apart(target):
            found[step.table] = count_rows(self._connection, step, {"id": target.id})
        return {store: count for store, count in found.items() if count}

    def erase(self, target: Target, options: Options) -> dict[str, Any]:
        """Erase, and return the receipt; again returns the same one.

        Raises:
            NotFound: There is no such key or thread, and there was no erasure of it.
            ThreadBusy: Another erasure is under way, or a run did not let go.
            RedisUnavailable: Redis does not answer; give the command again.
        """
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
        if not row or not row[0]:
            raise ThreadBusy("another erasure is under way", cure="wait for its end")
        try:
            erasure = self._begin(target, options)
            if erasure["receipt"]:
                receipt: dict[str, Any] = erasure["receipt"]
                return receipt
            return self._go_on(erasure, target, Options(**erasure["options"]))
        finally:
            if not self._connection.closed:
                self._connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))

    def _go_on(self, erasure: dict[str, Any], target: Target, options: Options) -> dict[str, Any]:
        name = erasure["id"]
        self._quiet(target)
        self._count(name, self._redis.forget(self._ids_of(target)))
        self._erase_threads(name, target, options)
        if target.kind == "key":
            self._erase_rows(name, target, options)
            self._settle_usage(name, target, options)
        for step in ORPHANS.values():
            self._in_batches(name, step, {}, label="checkpoints of no thread")
        self._shred(name, target)
        return self._finish(name, target)

    def _begin(self, target: Target, options: Options) -> dict[str, Any]:
        """Return the erasure under way, or the one that is done, or a new one."""
        there = self._is_there(target)
        with self._connection.transaction(), self._cursor() as cursor:
            cursor.execute(
                "SELECT * FROM app.erasures WHERE subject_id = %s ORDER BY begun_at DESC LIMIT 1",
                (target.id,),
            )
            found = cursor.fetchone()
            if found and (found["finished_at"] is None or not there):
                return found
            if not there:
                raise NotFound(f"there is no such {target.kind}", place=str(target.id))
            kept = {"keep_tickets": options.keep_tickets, "usage": options.usage}
            cursor.execute(
                "INSERT INTO app.erasures (subject, subject_id, options, begun_by)"
                " VALUES (%s, %s, %s, %s) RETURNING *",
                (target.kind, target.id, Jsonb(kept), self._by),
            )
            made = cursor.fetchone()
            assert made is not None
            cursor.execute(
                "UPDATE app.api_keys SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL",
                (target.id,),
            )
            self._tell("erase.begin", {"erasure": str(made["id"]), **_named(target), **kept})
            return made

    def _is_there(self, target: Target) -> bool:
        table = "api_keys" if target.kind == "key" else "threads"
        statement = sql.SQL("SELECT 1 FROM app.{} WHERE id = %s").format(sql.Identifier(table))
        return self._connection.execute(statement, (target.id,)).fetchone() is not None

    def _quiet(self, target: Target) -> None:
        """Wait until no process lets the key in any more, and none works on its threads."""
        row = self._connection.execute(
            "SELECT extract(epoch FROM now() - revoked_at) FROM app.api_keys WHERE id = %s",
            (target.id,),
        ).fetchone()
        if row is not None:
            time.sleep(max(0.0, CACHE_SECONDS + 1 - float(row[0])))
        deadline = time.monotonic() + 2 * self._lease + CACHE_SECONDS
        while self._connection.execute(_STOP, {"stop": STOP_REQUESTED, "id": target.id}).rowcount:
            if time.monotonic() > deadline:
                raise _still_busy()
            time.sleep(POLL_SECONDS)

    def _threads_of(self, target: Target, *, most: int | None = None) -> list[UUID]:
        if target.kind == "thread":
            return [target.id]
        rows = self._connection.execute(
            "SELECT id FROM app.threads WHERE key_id = %s ORDER BY id LIMIT %s", (target.id, most)
        ).fetchall()
        return [row[0] for row in rows]

    def _ids_of(self, target: Target) -> list[UUID]:
        """Return the ids of the key, its threads and their runs."""
        threads = self._threads_of(target)
        rows = self._connection.execute(
            "SELECT id FROM app.runs WHERE thread_id = ANY(%s) UNION"
            " SELECT run_id FROM audit.entries WHERE key_id = %s AND run_id IS NOT NULL UNION"
            " SELECT run_id FROM app.audit_outbox WHERE key_id = %s AND run_id IS NOT NULL",
            (threads, target.id, target.id),
        ).fetchall()
        return [target.id, *threads, *(row[0] for row in rows)]

    def _phases(
        self, target: Target, threads: list[UUID], options: Options
    ) -> list[tuple[Subject, list[Step]]]:
        keep = options.kept_tables()
        phases = [(Subject(threads), self._reach.steps(of_key=False, keep=keep))]
        if target.kind == "key":
            phases.append((Subject(key=target.id), self._reach.steps(of_key=True, keep=keep)))
        return phases

    def _apart(self, target: Target) -> list[Step]:
        by_id = sql.SQL("%(id)s IN (key_id, thread_id)")
        steps = [Step("app.audit_keys", by_id), Step("app.audit_outbox", by_id)]
        if target.kind == "key":
            steps.append(Step("app.usage", sql.SQL("key_id = %(id)s")))
            steps.append(Step("app.api_keys", sql.SQL("id = %(id)s")))
        return steps

    def _erase_threads(self, name: UUID, target: Target, options: Options) -> None:
        done = False
        while not done:
            threads = self._threads_of(target, most=BATCH_THREADS)
            done = target.kind == "thread" or not threads
            subject, steps = self._phases(target, threads, options)[0]
            with self._connection.transaction():
                self._connection.execute(
                    "SELECT FROM app.threads WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (threads,)
                )
                if self._connection.execute(_ALIVE, (threads,)).fetchone():
                    raise _still_busy()
                counts = self._unlink_tickets(subject, options, of_key=False)
                for step in steps:
                    counts[step.table] = delete_rows(self._connection, step, subject.values())
                self._count(name, counts)

    def _erase_rows(self, name: UUID, target: Target, options: Options) -> None:
        subject, steps = self._phases(target, [], options)[1]
        for step in steps:
            self._in_batches(name, step, subject.values(), label=step.table)
        with self._connection.transaction():
            self._count(name, self._unlink_tickets(subject, options, of_key=True))

    def _unlink_tickets(
        self, subject: Subject, options: Options, *, of_key: bool
    ) -> dict[str, int]:
        if not options.keep_tickets:
            return {}
        step = next(s for s in self._reach.steps(of_key=of_key) if s.table == TICKETS)
        statement = sql.SQL("UPDATE {} SET thread_id = NULL, key_id = NULL WHERE {}").format(
            step.name(), step.where
        )
        return {f"kept {TICKETS}": self._connection.execute(statement, subject.values()).rowcount}

    def _in_batches(self, name: UUID, step: Step, values: dict[str, Any], *, label: str) -> None:
        while True:
            with self._connection.transaction():
                gone = delete_rows(self._connection, step, values, most=BATCH_ROWS)
                self._count(name, {label: gone})
            if gone < BATCH_ROWS:
                return

    def _settle_usage(self, name: UUID, target: Target, options: Options) -> None:
        with self._connection.transaction():
            if options.usage == "sums":
                self._connection.execute(_MAKE_NOBODY, (NOBODY,))
                sums = self._reach.columns("app.usage") - {"key_id", "day", "model", "feature"}
                statement = _sum_up(sorted(sums))
                self._connection.execute(statement, {"id": target.id, "nobody": NOBODY})
            step = Step("app.usage", sql.SQL("key_id = %(id)s"))
            gone = delete_rows(self._connection, step, {"id": target.id})
            kept = {"kept app.usage as sums": gone} if options.usage == "sums" else {}
            self._count(name, {"app.usage": gone, **kept})

    def _shred(self, name: UUID, target: Target) -> None:
        """Chain what waits, then destroy the data keys: entries stay, and nobody can open them."""
        step = self._apart(target)[0]
        while count_rows(self._connection, self._apart(target)[1], {"id": target.id}):
            if seal_batch(self._connection, self._vault) < 0:
                time.sleep(POLL_SECONDS)
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (SEAL_LOCK,))
            gone = delete_rows(self._connection, step, {"id": target.id})
            row = self._connection.execute(
                "SELECT count(*) FROM audit.entries"
                " WHERE sealed IS NOT NULL AND %(id)s IN (key_id, thread_id)",
                {"id": target.id},
            ).fetchone()
            closed = {"audit entries closed for good": row[0] if row and gone else 0}
            self._count(name, {"app.audit_keys": gone, **closed})

    def _finish(self, name: UUID, target: Target) -> dict[str, Any]:
        """Delete the key itself, and write the receipt, together."""
        with self._connection.transaction(), self._cursor() as cursor:
            if target.kind == "key":
                gone = cursor.execute("DELETE FROM app.api_keys WHERE id = %s", (target.id,))
                self._count(name, {"app.api_keys": gone.rowcount})
            cursor.execute("SELECT * FROM app.erasures WHERE id = %s", (name,))
            erasure = cursor.fetchone()
            assert erasure is not None
            receipt = make_receipt(erasure, self._vault, head=read_head(self._connection))
            cursor.execute(
                "UPDATE app.erasures SET finished_at = now(), receipt = %s WHERE id = %s",
                (Jsonb(receipt), name),
            )
            details = {"erasure": str(name), **_named(target), "receipt_hash": receipt["hash"]}
            self._tell("erase.done", details)
        return receipt

    def _count(self, name: UUID, counts: dict[str, int]) -> None:
        """Add to what the erasure has done, in the transaction that did it."""
        with self._cursor() as cursor:
            cursor.execute("SELECT erased FROM app.erasures WHERE id = %s FOR UPDATE", (name,))
            row = cursor.fetchone()
            erased = dict(row["erased"]) if row else {}
            for store, count in counts.items():
                erased[store] = erased.get(store, 0) + count
            cursor.execute(
                "UPDATE app.erasures SET erased = %s WHERE id = %s", (Jsonb(erased), name)
            )

    def _tell(self, kind: str, details: dict[str, Any]) -> None:
        """Write an entry that names the subject by its id only, so that it stays readable."""
        append_now(self._connection, Entry(kind, actor=f"operator {self._by}", details=details))

    def _cursor(self) -> psycopg.Cursor[dict[str, Any]]:
        return self._connection.cursor(row_factory=dict_row)

    def left_of(self, target: Target) -> dict[str, int]:
        """Return what is still there, by store: nothing after an erasure."""
        return self.preview(target, Options())


_STOP = """
UPDATE app.runs SET error = %(stop)s
WHERE status = 'running' AND lease_until > now() AND thread_id IN (
    SELECT id FROM app.threads WHERE %(id)s IN (id, key_id))
"""


_MAKE_NOBODY = """
INSERT INTO app.api_keys (id, name, prefix, digest, scopes, revoked_at)
VALUES (%s, '(erased)', '', 'none', '{}', now()) ON CONFLICT DO NOTHING
"""
_ALIVE = """
SELECT FROM app.runs
WHERE thread_id = ANY(%s) AND status = 'running' AND lease_until > clock_timestamp() LIMIT 1
"""


def _still_busy() -> ThreadBusy:
    return ThreadBusy("a run is under way", cure="give the command again when it ended")


def _named(target: Target) -> dict[str, str]:
    return {"subject": target.kind, "subject_id": str(target.id)}


def _sum_up(columns: list[str]) -> sql.Composed:
    """Return the statement that adds a key's usage to nobody's, by month and model."""

    def each(template: str) -> sql.Composed:
        return sql.SQL(", ").join(
            sql.SQL(template).format(column=sql.Identifier(column)) for column in columns
        )

    return sql.SQL(
        "INSERT INTO app.usage (key_id, day, model, feature, {})"
        " SELECT %(nobody)s, date_trunc('month', day)::date, model, '', {} FROM app.usage"
        " WHERE key_id = %(id)s GROUP BY 2, 3"
        " ON CONFLICT (key_id, day, model, feature) DO UPDATE SET {}"
    ).format(
        each("{column}"),
        each("sum({column})"),
        each("{column} = usage.{column} + excluded.{column}"),
    )
