"""The audit: what was done, by which key, and what was decided for it.

Entries are rows of `app.audit_outbox`, which a sealer chains a moment later (`agent_app/audit`).
What must not be lost is written with `append` or `append_now` in the transaction of what it tells
about. `record` waits for nothing: its entries are written in batches some milliseconds later.
"""

import asyncio
import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog

from agent_app.errors import AgentAppError
from agent_app.observability import metrics
from agent_app.state.database import Pool, database_errors

GATHER_SECONDS = 0.02
RETRY_SECONDS = 1.0
BATCH = 500
WAITING_ENTRIES = 10_000
"""So many are held while the database is away; beyond it they are counted and dropped."""
BOUND_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, not yet chained."""

    kind: str
    key_id: UUID | None = None
    thread_id: UUID | None = None
    run_id: UUID | None = None
    correlation: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    actor: str = ""
    """Who did it, where it was no API key: the account of an operator."""
    at: datetime | None = None
    """None is the moment of writing."""


INSERT = """
INSERT INTO app.audit_outbox (at, kind, actor, key_id, thread_id, run_id, correlation, details)
VALUES (coalesce(%s, clock_timestamp()), %s, %s, %s, %s, %s, %s, %s)
"""


def values_of(entry: Entry) -> tuple[Any, ...]:
    """Return what `INSERT` takes."""
    return (
        entry.at,
        entry.kind,
        entry.actor,
        entry.key_id,
        entry.thread_id,
        entry.run_id,
        entry.correlation,
        json.dumps(entry.details, default=str),
    )


def read_details(text: str) -> Any:
    """Return the details of a row of the outbox."""
    return json.loads(text)


async def append(connection: psycopg.AsyncConnection[Any], entry: Entry) -> None:
    """Write an entry in the transaction that is open on the connection."""
    await connection.execute(INSERT, values_of(entry))


def append_now(connection: psycopg.Connection[Any], entry: Entry) -> None:
    """Write an entry in the transaction that is open on the connection: a command's side."""
    connection.execute(INSERT, values_of(entry))


def current_operator() -> str:
    """Return the account of the person at the command line, through sudo and the wrapper too."""
    for name in ("AGENT_APP_OPERATOR", "SUDO_USER", "USER"):
        if found := os.environ.get(name):
            return found
    return f"uid {os.getuid()}"


@dataclass(slots=True)
class _Window:
    ends: float
    more: int = 0


class Audit:
    """Takes entries down without making their writers wait.

    A SIGKILL can lose what was recorded in the last `GATHER_SECONDS`; nothing else can.

    Args:
        pool: Connections; without one entries go nowhere but the log.
    """

    def __init__(self, pool: Pool | None = None) -> None:
        self._pool = pool
        self._waiting: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._dropped = 0
        self._windows: dict[tuple[str, UUID | None, str], _Window] = {}

    async def record(
        self,
        kind: str,
        *,
        key_id: UUID | None = None,
        thread_id: UUID | None = None,
        run_id: UUID | None = None,
        correlation: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry.

        Args:
            kind: What happened, `subject.verb`: `run.end`, `route.choose`, `tool.approve`.
            key_id: Whose doing.
            thread_id: On which thread.
            run_id: In which run.
            correlation: The request's correlation ID.
            details: More of it; figures and names, never texts of a person or secrets.
        """
        now = datetime.now(UTC)
        self._take(Entry(kind, key_id, thread_id, run_id, correlation, details or {}, at=now))

    async def record_bounded(
        self, kind: str, *, key_id: UUID | None, why: str, correlation: str = ""
    ) -> None:
        """Add an entry of a kind that a client can cause at will.

        The first of a key and reason in a minute is written; at the minute's end one more entry
        says how many followed. So a flood cannot fill the disk.
        """
        name, now = (kind, key_id, why), time.monotonic()
        window = self._windows.get(name)
        if window is not None and now < window.ends:
            window.more += 1
            return
        self._close_window(name)
        self._windows[name] = _Window(now + BOUND_SECONDS)
        await self.record(kind, key_id=key_id, correlation=correlation, details={"why": why})

    def _take(self, entry: Entry) -> None:
        if self._pool is None:
            log.info("audit", kind=entry.kind, run=str(entry.run_id))
        elif len(self._waiting) >= WAITING_ENTRIES:
            self._dropped += 1
            metrics.AUDIT_DROPPED.inc()
        else:
            self._waiting.append(entry)
            self._wake.set()

    def _close_window(self, name: tuple[str, UUID | None, str]) -> None:
        window = self._windows.pop(name, None)
        if window is not None and window.more:
            kind, key_id, why = name
            details = {"why": why, "more": window.more, "seconds": BOUND_SECONDS}
            self._take(Entry(kind, key_id, details=details, at=datetime.now(UTC)))

    def _close_windows(self, *, all_of_them: bool = False) -> None:
        now = time.monotonic()
        for name in [n for n, w in self._windows.items() if all_of_them or now >= w.ends]:
            self._close_window(name)

    async def work(self) -> None:
        """Write what was recorded, for ever."""
        while True:
            try:
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass
            self._close_windows()
            try:
                await self.flush()
            except AgentAppError as error:
                log.warning("audit_waits", entries=len(self._waiting), why=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("audit_waits", entries=len(self._waiting))
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Write all that was recorded so far; it cannot be lost from then on.

        Raises:
            DatabaseUnavailable: It does not answer; the entries are kept.
        """
        async with self._writing:
            self._wake.clear()
            if self._dropped:
                count, self._dropped = self._dropped, 0
                details = {"entries": count}
                self._waiting.append(Entry("audit.drop", details=details, at=datetime.now(UTC)))
            while self._waiting and self._pool is not None:
                batch = [self._waiting[n] for n in range(min(BATCH, len(self._waiting)))]
                await self._write(self._pool, batch)
                for _ in batch:
                    self._waiting.popleft()

    async def _write(self, pool: Pool, batch: list[Entry]) -> None:
        async with database_errors(), pool.connection() as connection:
            if len(batch) == 1:
                await connection.execute(INSERT, values_of(batch[0]))
                return
            async with connection.transaction(), connection.cursor() as cursor:
                await cursor.executemany(INSERT, [values_of(entry) for entry in batch])

    async def close(self) -> None:
        """Write the last entries, or say how many are lost."""
        self._close_windows(all_of_them=True)
        try:
            await self.flush()
        except AgentAppError as error:
            log.error("audit_lost", entries=len(self._waiting), why=str(error))
