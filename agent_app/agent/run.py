"""One run: a graph in a task of its own that feeds a bounded queue.

The task outlives no client for long: `stop` cancels it, which closes the engine's stream, and
waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

from agent_app.agent.events import Done, Event, Failed
from agent_app.errors import AgentAppError, RunInterrupted

QUEUE_EVENTS = 64
STOP_SECONDS = 5.0
LAST_WORD_SECONDS = 2.0


class Run:
    """A run under way, as its listener sees it.

    Args:
        run_id: Its name.
        thread_id: Its thread, None if it keeps no state.
        attempt: How often it was taken up.
        resumed: Whether this attempt goes on from a checkpoint.
    """

    def __init__(
        self, run_id: UUID, thread_id: UUID | None, *, attempt: int = 1, resumed: bool = False
    ) -> None:
        self.run_id = run_id
        self.thread_id = thread_id
        self.attempt = attempt
        self.resumed = resumed
        self.why_stopped: AgentAppError | None = None
        self.headers: dict[str, str] = {}
        """What its answer says of limits and budget."""
        self.ending = False
        """Set when only the last word is left: from then on `stop` only waits."""
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_EVENTS)
        self._task: asyncio.Task[None] | None = None
        self._ahead: Event | None = None
        self._nobody_listens = False

    def start(self, work: Callable[["Run"], Awaitable[None]]) -> "asyncio.Task[None]":
        """Begin; the work must end with `Done` or `Failed`."""

        async def body() -> None:
            await work(self)

        self._task = asyncio.create_task(body(), name=f"run-{self.run_id}")
        return self._task

    async def tell(self, event: Event) -> None:
        """Hand an event to the listener, waiting for room."""
        await self._queue.put(event)

    async def tell_last(self, event: Event) -> None:
        """Hand over the last word, but not wait for ever on a listener who does not read."""
        if self._nobody_listens:
            return
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._queue.put(event)
        except TimeoutError:
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put_nowait(event)

    async def first(self, seconds: float) -> Event | None:
        """Return the first event, which `events` will still yield; None if it is not there yet."""
        try:
            async with asyncio.timeout(seconds):
                self._ahead = await self._queue.get()
        except TimeoutError:
            return None
        return self._ahead

    async def events(self, *, quiet_seconds: float) -> AsyncIterator[Event | None]:
        """Yield events up to the last word; None after each quiet stretch, to keep a line alive."""
        while True:
            event, self._ahead = self._ahead, None
            if event is None:
                try:
                    async with asyncio.timeout(quiet_seconds):
                        event = await self._queue.get()
                except TimeoutError:
                    yield None
                    continue
            yield event
            if isinstance(event, Done | Failed):
                return

    async def stop(self, why: AgentAppError | None = None) -> None:
        """Cancel the run and wait, bounded, until it has let go of the engine.

        Args:
            why: Told to the listener; None when there is none any more.
        """
        self._nobody_listens = self._nobody_listens or why is None
        if self._task is None or self._task.done():
            return
        if self.why_stopped is None and not self.ending:
            self.why_stopped = why or RunInterrupted("the client left")
            self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)
