"""One run: a graph in a task of its own that writes a log of events, which a client follows.

A client may lose its line and come back: the newest events are kept, and whoever follows the run
says after which one to go on. A run whose client left waits for it for a moment, then it is
stopped, which closes the engine's stream.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

from agent_app.agent.events import Done, Event, Failed
from agent_app.errors import AgentAppError, RunInterrupted

UNREAD_EVENTS = 64
"""A run that is so far ahead of its client waits: between two steps, never in mid-answer, where it
would hold a place at an engine for a slow reader.
"""
KEPT_EVENTS = 2048
"""Events kept for a client that comes back: some 300 KB, and more than two steps of an answer."""
STOP_SECONDS = 5.0
LAST_WORD_SECONDS = 2.0


class Place(NamedTuple):
    """Where an event stands among all of its run; later ones compare greater."""

    attempt: int
    number: int


class Numbered(NamedTuple):
    """An event and its place; None for a correction that a client need not remember."""

    place: Place | None
    event: Event


class Run:
    """A run under way, as its client sees it.

    Args:
        run_id: Its name.
        thread_id: Its thread, None if it keeps no state.
        key_id: Whose it is.
        attempt: How often it was taken up.
        resumed: Whether this attempt goes on from a checkpoint.
    """

    def __init__(
        self,
        run_id: UUID,
        thread_id: UUID | None,
        *,
        key_id: UUID | None = None,
        attempt: int = 1,
        resumed: bool = False,
    ) -> None:
        self.run_id = run_id
        self.thread_id = thread_id
        self.key_id = key_id
        self.attempt = attempt
        self.resumed = resumed
        self.why_stopped: AgentAppError | None = None
        self.headers: dict[str, str] = {}
        """What its answer says of limits and budget."""
        self.ending = False
        """Set when only the last word is left: from then on `stop` only waits."""
        self._cache: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.caught_up_from: Place | None = None
        """What the client had heard before this attempt, where it said so."""
        self._log: list[Numbered] = []
        self._dropped = 0
        self._taken = 0  # events that a follower has taken, of all there were
        self._told = 0  # numbers given
        self._follower: object | None = None
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._nobody_listens = False

    def start(self, work: Callable[["Run"], Awaitable[None]]) -> "asyncio.Task[None]":
        """Begin; the work must end with `Done` or `Failed`."""

        async def body() -> None:
            await work(self)

        self._task = asyncio.create_task(body(), name=f"run-{self.run_id}")
        return self._task

    def tell_cache(self, word: str) -> None:
        """Say what the cache of answers did; the first word stands."""
        if not self._cache.done():
            self._cache.set_result(word)

    async def cache_word(self, seconds: float) -> str:
        """Return what the cache did; "" where there is none, or it is not known in time."""
        done, _ = await asyncio.wait({self._cache}, timeout=seconds)
        return self._cache.result() if done else ""

    # ---- what the run's own task calls -------------------------------------------------------

    async def tell(self, event: Event) -> None:
        """Add the next event, waiting for room."""
        await self.wait_for_room()
        self.tell_at_once(event)

    def tell_at_once(self, event: Event) -> None:
        """Add the next event, however far behind the client is."""
        self._told += 1
        self._add(Numbered(Place(self.attempt, self._told), event))

    async def tell_again(self, numbered: Numbered) -> None:
        """Add an event that an earlier attempt told, under the place it had there."""
        await self.wait_for_room()
        self._add(numbered)

    def number_after(self, number: int) -> None:
        """Give what is told next the number after this one."""
        self._told = number

    async def tell_last(self, event: Event) -> None:
        """Add the last word, but wait only a little for a client who does not read."""
        if not self._nobody_listens:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await self.wait_for_room()
        self.tell_at_once(event)

    async def wait_for_room(self) -> None:
        """Wait until the client has heard most of what was told."""
        while self._end - self._taken >= UNREAD_EVENTS:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _add(self, numbered: Numbered) -> None:
        self._log.append(numbered)
        if len(self._log) >= 2 * KEPT_EVENTS:
            old = min(KEPT_EVENTS, self._taken - self._dropped)
            del self._log[:old]
            self._dropped += old
        _wake(self._news)

    @property
    def _end(self) -> int:
        return self._dropped + len(self._log)

    # ---- what its client calls ---------------------------------------------------------------

    @property
    def over(self) -> bool:
        """The last word is said."""
        return bool(self._log) and isinstance(self._log[-1].event, Done | Failed)

    @property
    def left(self) -> bool:
        """Its client's line broke, and nobody has come back yet."""
        return self._leaving is not None

    def has_more_than(self, heard: Place) -> bool:
        """Return whether everything after that event is here, or will be.

        A failure that the client has heard is all there is: it wants the run taken up again.
        """
        if heard.attempt > self.attempt or (self.over and self._heard_failure(heard)):
            return False
        if heard.attempt < self.attempt and (
            self.caught_up_from is None or heard < self.caught_up_from
        ):
            return False
        return self._dropped == 0 or (self._log[0].place or Place(0, 0)) <= heard

    def _heard_failure(self, heard: Place) -> bool:
        last = self._log[-1]
        return isinstance(last.event, Failed) and last.place is not None and last.place <= heard

    async def first(self, seconds: float) -> Event | None:
        """Return the first event, which `events` will still yield; None if it is not there yet."""
        if not self._log:
            await self._wait_for_news(seconds)
        return self._log[0].event if self._log else None

    def connect(self, line: object) -> None:
        """Let a line follow, alone: an earlier one broke unseen, and its `follow` ends."""
        if self._follower is not line:
            self._follower = line
            _wake(self._news)
        self._stay()

    async def follow(
        self, *, quiet_seconds: float, line: object | None = None, heard: Place | None = None
    ) -> AsyncIterator[list[Numbered]]:
        """Yield what is new, up to the last word; nothing after each quiet stretch.

        All that is there comes at once, so that it can be sent at once; a quiet stretch is told
        so that the line can be kept alive.

        Args:
            quiet_seconds: What counts as quiet.
            line: The client's connection, as in `connect` and `leave`.
            heard: The last event the client has heard; see `has_more_than`.
        """
        line = line or object()
        self.connect(line)
        place = self._taken = self._place_after(heard) if heard else self._dropped
        while self._follower is line:
            if place < self._end:
                news = self._log[place - self._dropped :]
                place = self._taken = self._end
                _wake(self._room)
                yield news
                if isinstance(news[-1].event, Done | Failed):
                    return
            elif not await self._wait_for_news(quiet_seconds):
                yield []

    async def events(self, *, quiet_seconds: float) -> AsyncIterator[Event | None]:
        """Yield events one by one, without their places; None after each quiet stretch."""
        async for news in self.follow(quiet_seconds=quiet_seconds):
            for numbered in news:
                yield numbered.event
            if not news:
                yield None

    def _place_after(self, heard: Place) -> int:
        for index in range(len(self._log) - 1, -1, -1):
            found = self._log[index].place
            if found is not None and found <= heard:
                last = self._end - 1 if self.over else self._end  # the last word is always told
                return min(self._dropped + index + 1, last)
        return self._dropped

    async def _wait_for_news(self, seconds: float) -> bool:
        self._news = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._news
        except TimeoutError:
            return False
        return True

    # ---- its end -----------------------------------------------------------------------------

    def leave(self, line: object, grace_seconds: float) -> None:
        """Say that a line broke: the run is stopped unless another connects soon."""
        if self.has_other_line(line):
            return
        self._follower = None
        self._stay()
        if self._task is None or self._task.done():
            return
        loop = asyncio.get_running_loop()
        self._leaving = loop.call_later(grace_seconds, self._give_up)

    def has_other_line(self, line: object) -> bool:
        """Return whether the client follows it over another line than this one."""
        return self._follower is not None and self._follower is not line

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _give_up(self) -> None:
        self._stopping = asyncio.ensure_future(self.stop())

    def stop(self, why: AgentAppError | None = None) -> Coroutine[Any, Any, None]:
        """Cancel the run at once; return the bounded wait until it has let go of the engine.

        A client that comes back before anybody waits is then not given this run.

        Args:
            why: Told to the client; None when there is none any more.
        """
        self._nobody_listens = self._nobody_listens or why is None
        running = self._task is not None and not self._task.done()
        if self._task is not None and running and self.why_stopped is None and not self.ending:
            self.why_stopped = why or RunInterrupted("the client left")
            self._task.cancel()
        return self._let_go()

    async def _let_go(self) -> None:
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)


def _wake(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
