"""Deletes what is older than the configuration allows, in small transactions.

There is no list of what is done: each run looks anew for what is too old, so one that was killed
is finished by the next.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg import sql
from psycopg.rows import dict_row

from agent_app.config import Retention
from agent_app.state.audit import Entry, append_now, current_operator
from agent_app.state.reach import (
    BATCH_ROWS,
    ORPHANS,
    Reach,
    Step,
    Subject,
    count_rows,
    delete_rows,
)

LOCK_KEY = 0x52657465  # "Rete"
BATCH_THREADS = 50
BATCH_ENTRIES = 5_000
TICKETS = frozenset({"app.tickets"})
"""What people opened tickets for is the operator's business, beyond the talk it came from."""
VACUUM_ROWS = 10_000
VACUUM_SHARE = 0.2  # autovacuum's own threshold

_IDLE = """
SELECT t.id FROM app.threads AS t
WHERE t.created_at < now() - make_interval(days => %(days)s) AND NOT EXISTS (
    SELECT FROM app.runs AS r WHERE r.thread_id = t.id
        AND greatest(r.started_at, r.finished_at, r.lease_until)
            >= now() - make_interval(days => %(days)s)
)
"""
# A run between others is shown nowhere; the first gives the title and the last the status.
_RUNS = """
status IN ('done', 'failed', 'abandoned') AND finished_at < now() - make_interval(days => %(age)s)
AND EXISTS (SELECT FROM app.runs AS o WHERE o.thread_id = runs.thread_id AND o.number < runs.number)
AND EXISTS (SELECT FROM app.runs AS o WHERE o.thread_id = runs.thread_id AND o.number > runs.number)
"""
_EFFECTS = """
created_at < now() - make_interval(days => %(age)s) AND NOT EXISTS (
    SELECT FROM app.runs AS r WHERE r.id = run_id AND r.status IN ('running', 'interrupted'))
"""
_WEBHOOKS = "coalesce(delivered_at, given_up_at) < now() - make_interval(days => %(age)s)"
_USAGE = """
day < date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => %(age)s)
"""
_DATA_KEYS = """
created_at < now() - make_interval(days => %(age)s)
AND NOT EXISTS (SELECT FROM audit.entries AS e WHERE e.thread_id = subject)
AND NOT EXISTS (SELECT FROM audit.entries AS e WHERE e.key_id = subject AND e.thread_id IS NULL)
AND NOT EXISTS (SELECT FROM app.audit_outbox AS o WHERE subject IN (o.thread_id, o.key_id))
"""
_OLD_ENTRIES = "SELECT count(*) FROM audit.entries WHERE at < now() - make_interval(days => %s)"
_MANY_CHECKPOINTS = """
SELECT thread_id FROM checkpoints.checkpoints AS c
WHERE thread_id > %s AND NOT EXISTS (
    SELECT FROM app.runs AS r WHERE r.thread_id::text = c.thread_id AND r.lease_until > now())
GROUP BY thread_id HAVING count(*) > 1 ORDER BY thread_id LIMIT %s
"""


@dataclass(slots=True)
class Report:
    """What a run deleted, or would, by store."""

    busy: bool = False
    """Another retention run is under way; this one did nothing."""
    deleted: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    vacuum: list[str] = field(default_factory=list)
    """Tables with many dead rows that autovacuum has not come to."""
    seconds: float = 0.0


def run_retention(
    connection: psycopg.Connection[Any], retention: Retention, *, dry_run: bool = False
) -> Report:
    """Delete what is too old, store by store; one that fails leaves the others to be done.

    Args:
        connection: Of the app's role, with autocommit.
        retention: The ages.
        dry_run: Count only.
    """
    report, began = Report(), time.monotonic()
    connection.execute("SET search_path = app, checkpoints")
    with _locked(connection) as ours:
        if not ours:
            report.busy = True
            return report
        actor = f"operator {current_operator()}"
        if not dry_run:
            append_now(connection, Entry("retention.begin", actor=actor))
        for store, work in _stores(connection, retention, dry_run=dry_run):
            try:
                report.deleted[store] = work()
            except psycopg.OperationalError:
                raise
            except psycopg.Error as error:
                report.failed[store] = str(error).strip().splitlines()[0]
        if not dry_run:
            details = {"deleted": report.deleted, "failed": report.failed}
            append_now(connection, Entry("retention.end", actor=actor, details=details))
    report.vacuum = _wants_vacuum(connection)
    report.seconds = round(time.monotonic() - began, 3)
    return report


@contextmanager
def _locked(connection: psycopg.Connection[Any]) -> Iterator[bool]:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
    ours = bool(row and row[0])
    try:
        yield ours
    finally:
        if ours and not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))


def _stores(
    connection: psycopg.Connection[Any], retention: Retention, *, dry_run: bool
) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield each store with what deletes from it or counts."""

    def by_age(table: str, where: str, age: int) -> Callable[[], int]:
        return lambda: _rows(connection, Step(table, sql.SQL(where)), age, dry_run=dry_run)

    if days := retention.threads_days:
        yield "threads", lambda: _threads(connection, days, dry_run=dry_run)
    yield (
        "orphaned_checkpoints",
        lambda: sum(_rows(connection, step, 0, dry_run=dry_run) for step in ORPHANS.values()),
    )
    yield "pruned_threads", lambda: _prune(connection, dry_run=dry_run)
    if age := retention.effects_days:
        yield "tool_effects", by_age("app.tool_effects", _EFFECTS, age)
    if age := retention.runs_days:
        yield "runs", by_age("app.runs", _RUNS, age)
    if age := retention.webhooks_days:
        yield "webhooks", by_age("app.webhooks", _WEBHOOKS, age)
    if age := retention.usage_months:
        yield "usage", by_age("app.usage", _USAGE, age)
    if age := retention.audit_days:
        yield "audit_entries", lambda: _audit(connection, age, dry_run=dry_run)
        yield "audit_data_keys", by_age("app.audit_keys", _DATA_KEYS, age)


def _rows(connection: psycopg.Connection[Any], step: Step, age: int, *, dry_run: bool) -> int:
    if dry_run:
        return count_rows(connection, step, {"age": age})
    total = 0
    while gone := delete_rows(connection, step, {"age": age}, most=BATCH_ROWS):
        total += gone
    return total


def _threads(connection: psycopg.Connection[Any], days: int, *, dry_run: bool) -> int:
    if dry_run:
        row = connection.execute(f"SELECT count(*) FROM ({_IDLE}) AS idle", {"days": days})  # noqa: S608
        return int((row.fetchone() or (0,))[0])
    steps, total = Reach(connection).steps(of_key=False, keep=TICKETS), 0
    while True:
        with connection.transaction():
            rows = connection.execute(
                _IDLE + f"LIMIT {BATCH_THREADS} FOR UPDATE OF t SKIP LOCKED", {"days": days}
            ).fetchall()
            threads = _still_idle(connection, [row[0] for row in rows], days)
            for step in steps:
                delete_rows(connection, step, Subject(threads).values())
        total += len(threads)
        if not threads:
            return total


def _still_idle(connection: psycopg.Connection[Any], locked: list[UUID], days: int) -> list[UUID]:
    """Return the threads that no run took up before we had their lock: a fresh look."""
    rows = connection.execute(
        f"{_IDLE} AND t.id = ANY(%(locked)s)", {"days": days, "locked": locked}
    ).fetchall()
    return [row[0] for row in rows]


def _prune(connection: psycopg.Connection[Any], *, dry_run: bool) -> int:
    """Leave one checkpoint to each thread at rest; a run that ends well does so itself."""
    total, last = 0, ""
    while True:
        rows = connection.execute(_MANY_CHECKPOINTS, (last, BATCH_THREADS)).fetchall()
        if not rows:
            return total
        last = rows[-1][0]
        total += len(rows)
        if not dry_run:
            _keep_latest(connection, [row[0] for row in rows])


def _keep_latest(connection: psycopg.Connection[Any], threads: list[str]) -> None:
    factory = connection.row_factory
    connection.row_factory = dict_row
    try:
        for thread in threads:
            try:
                PostgresSaver(connection).prune([thread], strategy="keep_latest")
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                continue  # a run began meanwhile and prunes it when it ends
    finally:
        connection.row_factory = factory


def _audit(connection: psycopg.Connection[Any], days: int, *, dry_run: bool) -> int:
    if dry_run:
        return int((connection.execute(_OLD_ENTRIES, (days,)).fetchone() or (0,))[0])
    total = 0
    while True:
        row = connection.execute(
            "SELECT audit.drop_old(now() - make_interval(days => %s), %s)", (days, BATCH_ENTRIES)
        ).fetchone()
        if not row or not row[0]:
            return total
        total += int(row[0])


def _wants_vacuum(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT schemaname || '.' || relname FROM pg_stat_user_tables"
        " WHERE n_dead_tup > %s AND n_dead_tup > %s * (n_live_tup + n_dead_tup) ORDER BY 1",
        (VACUUM_ROWS, VACUUM_SHARE),
    ).fetchall()
    return [row[0] for row in rows]
