"""What each step passes before it goes to an engine: a bounded number at a time, keys in turn.

While places are free a step takes one from this process's reserve and asks nobody. Else it waits in
the queue that all processes share; while Redis is away, in this process's own, for its share of
the places. `fair_queue.py` tells who comes next.
"""

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncGenerator, Callable

import structlog

from agent_app.agent.events import Queued, Usage
from agent_app.agent.fair_queue import FairQueue
from agent_app.agent.queue_terms import Charge, Flow, Report, Ruling, Ticket, position, stamp
from agent_app.agent.shared_queue import FULL, SharedQueue
from agent_app.config import Limits
from agent_app.errors import AgentAppError, QueueFull, QueueTimeout
from agent_app.observability import metrics

CONTENDED_SECONDS = 0.25
QUIET_SECONDS = 1.0
"""Between reports without an event; also how old a charge, or a lost message, can get."""
POSITION_SECONDS = 1.0
CHARGE_TOKENS = 16
FIRST_GUESS_TOKENS = 256  # of an answer, before there was one
GUESS_WEIGHT = 0.2
GUESSES = 10_000
RETRY_AFTER_MOST = 600

log = structlog.get_logger(__name__)


class Place:
    """One step's way through the turnstile. Whatever becomes of the step, `leave` ends it."""

    def __init__(self, turnstile: "Turnstile | None", flow: Flow, prompt: int, cost: int) -> None:
        self._turnstile = turnstile
        self.flow = flow
        self.cost = cost
        self.granted = turnstile is None
        self.tag = 0.0
        """The key's virtual time when the step began."""
        self.ticket: Ticket | None = None
        self.refusal: AgentAppError | None = None
        self.position = 0
        self.changed = asyncio.Event()
        self._prompt = prompt
        self._tokens = 0
        self._failed = 0
        self._usage: Usage | None = None
        self._charged = cost

    async def wait(self) -> AsyncGenerator[Queued, None]:
        """Yield the step's position as it changes, until it has its place.

        Raises:
            QueueFull: There is no room to wait.
            QueueTimeout: It waited for as long as it may.
        """
        if self._turnstile is None or self.granted:
            return
        told, began, seconds = 0, time.monotonic(), self._turnstile.queue_seconds
        while not self.granted:
            try:
                async with asyncio.timeout(began + seconds - time.monotonic()):
                    await self.changed.wait()
            except TimeoutError:
                if not self.granted:
                    raise self._turnstile.give_up(self) from None
            self.changed.clear()
            if self.refusal is not None:
                raise self.refusal
            if not self.granted and self.position not in (0, told):
                told = self.position
                yield Queued(told, max(0.0, began + seconds - time.monotonic()))
        metrics.QUEUE_WAIT.labels(self._turnstile.model).observe(time.monotonic() - began)

    def count(self, usage: Usage | None) -> None:
        """Count a token that came, or take the engine's own count of the attempt."""
        self._tokens += 1
        self._usage = usage or self._usage
        if self._turnstile is not None and self._prompt + self._tokens > self._charged:
            self._charged += CHARGE_TOKENS
            self._turnstile.charge(self.flow, CHARGE_TOKENS)

    def retry(self) -> None:
        """Begin another attempt at the same place; what the last one made stays used."""
        self._failed, self._usage = self._tokens, None

    def leave(self) -> None:
        """Give the place, or the wait for it, up."""
        turnstile, self._turnstile = self._turnstile, None
        if turnstile is None:
            return
        if not self.granted:
            turnstile.withdraw(self)
            return
        used = self._prompt + self._tokens
        if self._usage is not None:
            used = self._usage.total + self._failed
            turnstile.learn(self.flow, self._usage.completion_tokens)
        turnstile.release(self.flow, used - self._charged)


class Turnstile:
    """The places before the engines of one model, as this process sees them.

    Args:
        model: The model's served name.
        limits: How long, and how many, may wait.
        process: Names this process among all.
        shared: The queue of all processes.
        capacity: Gives the number of completions the engines take at a time now; 0 is no bound.
    """

    def __init__(
        self,
        model: str,
        limits: Limits,
        *,
        process: str,
        shared: SharedQueue,
        capacity: Callable[[], int],
    ) -> None:
        self.model = model
        self.queue_seconds = limits.queue_seconds
        self._limits = limits
        self._process = process
        self._shared = shared
        self._capacity = capacity
        self._alone: FairQueue | None = None
        self._afresh = True
        self._held = self._used = self._reserve = 0
        self._contended = False
        self._waiting: dict[Ticket, Place] = {}
        self._joins: dict[Ticket, Place] = {}
        self._gone: list[Ticket] = []
        self._charges: dict[Flow, list[int]] = {}
        self._guesses: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._stirred = asyncio.Event()
        self._last = Ruling()
        self._asked_at = 0.0

    def ask(self, flow: Flow, *, prompt: int, most: int) -> Place:
        """Begin a step: at a place at once where one is in reserve, else in the queue.

        Args:
            flow: Whose step it is.
            prompt: Its prompt's tokens, by estimate.
            most: Tokens its answer may have.
        """
        if self._capacity() == 0:
            return Place(None, flow, prompt, 0)
        cost = prompt + min(most, round(self._guesses.get(flow.key, FIRST_GUESS_TOKENS)))
        place = Place(self, flow, prompt, cost)
        if self._used < self._held and not self._contended and not self._waiting:
            self._used += 1
            place.granted, place.tag = True, self._last.time
            self.charge(flow, cost, starts=1)
            if self._alone is not None:
                metrics.QUEUE_ALONE.labels(self.model).inc()
            if self._held - self._used <= self._reserve // 2:
                self._stirred.set()
            return place
        since = stamp(time.time(), background=flow.background)
        place.ticket = Ticket(
            flow.key, since, self._process, next(self._numbers), flow.weight, cost
        )
        self._waiting[place.ticket] = self._joins[place.ticket] = place
        metrics.QUEUE_LENGTH.labels(self.model).inc()
        self._stirred.set()
        return place

    def charge(self, flow: Flow, tokens: int, *, starts: int = 0) -> None:
        """Count tokens of a key; the next report tells the queue."""
        found = self._charges.setdefault(flow, [0, 0])
        found[0] += tokens
        found[1] += starts

    def learn(self, flow: Flow, tokens: int) -> None:
        """Remember how long a key's answers are."""
        if len(self._guesses) >= GUESSES:
            self._guesses.clear()
        old = self._guesses.setdefault(flow.key, float(tokens))
        self._guesses[flow.key] = old + GUESS_WEIGHT * (tokens - old)

    def release(self, flow: Flow, rest: int) -> None:
        """Take a place back, and put its charge right by the rest."""
        self.charge(flow, rest)
        self._used -= 1
        if self._contended or self._waiting or self._held - self._used > self._reserve:
            self._stirred.set()

    def withdraw(self, place: Place) -> None:
        """Take a step that waits out of the queue."""
        if place.ticket is not None and self._waiting.pop(place.ticket, None) is not None:
            metrics.QUEUE_LENGTH.labels(self.model).dec()
            self._joins.pop(place.ticket, None)
            self._gone.append(place.ticket)
            self._stirred.set()

    def give_up(self, place: Place) -> QueueTimeout:
        """Take a step that waited too long out, and return what to tell its client."""
        metrics.QUEUE_REFUSED.labels(self.model, "timeout").inc()
        seconds = self._retry_after(max(place.position, 1))
        return QueueTimeout(
            f"no engine was free within {self.queue_seconds:g} s; try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )

    def _retry_after(self, ahead: int) -> int:
        """Return the seconds in which so many steps get their turn, at the rate seen lately."""
        seconds = ahead / self._last.rate if self._last.rate else self.queue_seconds
        return min(max(1, math.ceil(seconds)), RETRY_AFTER_MOST)

    async def keep(self) -> None:
        """Report to the queue for ever, at each event and at least every second."""
        listening = asyncio.create_task(self._shared.listen(self._hear))
        try:
            while True:
                self._stirred.clear()
                try:
                    if self._capacity():
                        await self._turn()
                except Exception:  # without it every step would wait for ever
                    log.exception("queue_failed", model=self.model)
                    self._afresh = True
                    await asyncio.sleep(QUIET_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._stirred.wait()
        finally:
            listening.cancel()

    async def close(self) -> None:
        """Say goodbye, so that nobody waits for our lease to run out."""
        if self._capacity() and self._alone is None:
            await self._shared.turn(self._report(0, afresh=True, lease_seconds=0))

    def _pause(self) -> float:
        if self._contended or self._waiting:
            return CONTENDED_SECONDS
        return min(QUIET_SECONDS, self._limits.lease_seconds / 3)

    def _hear(self, message: str) -> None:
        self._contended = self._contended or message == FULL
        self._stirred.set()

    async def _turn(self) -> None:
        capacity = self._capacity()
        report = self._report(capacity, afresh=self._afresh)
        ruling = await self._shared.turn(report)
        if ruling is None:
            report, ruling = self._turn_alone(capacity)
        elif self._alone is not None:
            self._alone = None
            log.info("queue_shared_again", model=self.model)
        self._afresh = self._alone is not None or not ruling.known
        if not ruling.known:
            self._stirred.set()
            return
        self._settle(report)
        self._obey(ruling)

    def _turn_alone(self, capacity: int) -> tuple[Report, Ruling]:
        """Rule ourselves, over this process's share of the places."""
        afresh = self._alone is None
        if self._alone is None:
            tags = {key: line.tag for key, line in self._last.lines.items()}
            self._alone = FairQueue(self._last.time, tags)
        share = max(1, capacity // max(1, self._last.processes))
        report = self._report(share, afresh=afresh)
        ruling, _ = self._alone.turn(report, time.monotonic())
        if not ruling.known:  # it was not asked for longer than a lease
            report = self._report(share, afresh=True)
            ruling, _ = self._alone.turn(report, time.monotonic())
        return report, ruling

    def _report(self, capacity: int, *, afresh: bool, lease_seconds: float | None = None) -> Report:
        if afresh or self._contended:
            self._held = self._used  # before it is told: no step may begin there meanwhile
        self._held = min(self._held, self._used + self._reserve)
        joins = self._waiting if afresh else self._joins
        asks = joins
        if time.monotonic() - self._asked_at >= POSITION_SECONDS:
            asks, self._asked_at = self._waiting, time.monotonic()
        return Report(
            process=self._process,
            lease_seconds=self._limits.lease_seconds if lease_seconds is None else lease_seconds,
            capacity=capacity,
            length=self._limits.queue_length,
            held=self._held,
            used=self._used,
            joins=tuple(joins),
            gone=tuple(self._gone),
            charges=tuple(Charge(flow, *counts) for flow, counts in self._charges.items()),
            asks=tuple(asks),
            afresh=afresh,
        )

    def _settle(self, report: Report) -> None:
        """Forget what the queue has heard now; what came meanwhile goes with the next report."""
        for ticket in report.joins:
            self._joins.pop(ticket, None)
        del self._gone[: len(report.gone)]
        for charge in report.charges:
            left = self._charges[charge.flow]
            left[0] -= charge.tokens
            left[1] -= charge.starts
            if left == [0, 0]:
                del self._charges[charge.flow]

    def _obey(self, ruling: Ruling) -> None:
        if self._alone is None:
            self._last = ruling
        self._held += ruling.spare + len(ruling.granted)
        self._reserve, self._contended = ruling.reserve, ruling.waiting > 0
        for ticket, tag in ruling.granted:
            self._grant(ticket, tag)
        for ticket in ruling.refused:
            self._refuse(ticket, ruling.waiting)
        known = {ticket for ticket in ruling.ranks if ticket in self._waiting}
        for ticket in known:
            place = self._waiting[ticket]
            cost = max(1, ticket.cost)
            rank = position(ticket.key, ruling.ranks[ticket], ruling.lines, cost=cost)
            if place.position == 0:
                metrics.QUEUE_POSITION.labels(self.model).observe(rank)
            if place.position != rank:
                place.position = rank
                place.changed.set()
        if self._held - self._used > self._reserve:  # steps ended meanwhile
            self._stirred.set()

    def _grant(self, ticket: Ticket, tag: float) -> None:
        place = self._waiting.pop(ticket, None)
        if place is None:  # its client left as its turn came
            self.charge(Flow(ticket.key, ticket.weight), -ticket.cost)
            self._stirred.set()
            return
        self._used += 1
        metrics.QUEUE_LENGTH.labels(self.model).dec()
        if self._alone is not None:
            metrics.QUEUE_ALONE.labels(self.model).inc()
        place.granted, place.tag = True, tag
        place.changed.set()

    def _refuse(self, ticket: Ticket, waiting: int) -> None:
        place = self._waiting.pop(ticket, None)
        if place is None:
            return
        metrics.QUEUE_LENGTH.labels(self.model).dec()
        metrics.QUEUE_REFUSED.labels(self.model, "full").inc()
        seconds = self._retry_after(waiting)
        place.refusal = QueueFull(
            f"{waiting} requests wait for an engine already; try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )
        place.changed.set()
