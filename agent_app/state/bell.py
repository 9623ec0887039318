"""Wakes tasks of this process when another, or this one, put work into the database.

PostgreSQL's NOTIFY only shortens the wait: whoever waits also looks by the clock, so a word lost
with a connection costs a moment and no work.
"""

import asyncio
import contextlib
from enum import StrEnum

import psycopg
import structlog

from agent_app.state.database import Pool

CHANNEL = "app_work"
QUIET_SECONDS = 30.0  # a connection that says nothing for so long is asked whether it lives
RECONNECT_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Work(StrEnum):
    """What there may be to do; the payload of a notification."""

    JOBS = "jobs"
    CANCELS = "cancels"
    WEBHOOKS = "webhooks"


class Bell:
    """Listens on one connection of its own.

    Args:
        pool: Tells how to connect; the connection is not one of the pool's.
    """

    def __init__(self, pool: Pool) -> None:
        assert isinstance(pool.conninfo, str)
        self._conninfo = pool.conninfo
        self._events: dict[str, list[asyncio.Event]] = {}

    def subscribe(self, work: Work) -> asyncio.Event:
        """Return an event that is set whenever there may be such work; the waiter clears it."""
        event = asyncio.Event()
        self._events.setdefault(work, []).append(event)
        return event

    async def listen(self) -> None:
        """Listen for ever, connecting anew when the connection is lost."""
        while True:
            try:
                await self._listen_once()
            except (psycopg.Error, OSError) as error:
                log.info("bell_lost", why=type(error).__name__)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True
        ) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            for work in Work:  # what rang while nobody listened
                self._ring(work)
            while True:
                heard = False
                async for notice in connection.notifies(timeout=QUIET_SECONDS, stop_after=1):
                    heard = True
                    self._ring(notice.payload)
                if not heard:
                    await connection.execute("SELECT 1")

    def _ring(self, work: str) -> None:
        for event in self._events.get(work, ()):
            event.set()


async def wait_for_ring(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, or so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
