"""The engine: a bounded number of answers at a time, each at its pace, and an end that is told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stand_in_engine.errors import AFTER_SHUTDOWN, ENGINE_DIED, internal
from stand_in_engine.faults import Faults
from stand_in_engine.metrics import Metrics


@dataclass(frozen=True)
class Pace:
    """How fast answers come.

    Attributes:
        first_token: Seconds until the first token.
        tokens_per_second: Of each answer, whatever runs beside it.
    """

    first_token: float = 0.02
    tokens_per_second: float = 100.0


@dataclass(frozen=True)
class Step:
    """One token, or the end.

    Attributes:
        token: Text; empty at an end without a token.
        finish: `stop`, `length` or `abort` with the last step.
    """

    token: str
    finish: str | None = None


class Engine:
    """Runs answers; what is running, waiting and done is seen in its metrics.

    Args:
        metrics: Told of everything.
        faults: Looked at while it runs.
        pace: Of every answer.
        slots: Answers at the same time (`--max-num-seqs`); others wait their turn.
        cache_tokens: Tokens that would fill the KV cache.
    """

    def __init__(
        self, metrics: Metrics, faults: Faults, pace: Pace, *, slots: int, cache_tokens: int
    ) -> None:
        self.metrics = metrics
        self.faults = faults
        self.pace = pace
        self.draining = False
        self._slots = asyncio.Semaphore(slots)
        self._cache_tokens = cache_tokens
        self._cached = 0
        self._made = 0
        self.open = 0  # requests that run or wait
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = asyncio.Event()
        self._dies = False

    def admit(self) -> None:
        """Let a request in.

        Raises:
            ApiError: 500: it comes after the shutdown began, or a fault says so.
        """
        if self.draining:
            raise internal(AFTER_SHUTDOWN)
        if self.faults.next_request_fails():
            raise internal(ENGINE_DIED)
        self.faults.out_of_memory()

    async def drain(self, timeout: float) -> None:
        """Refuse what is new, and let what runs finish for `timeout` seconds.

        With 0 everything in flight ends at once with `abort`; when a longer time is over, with an
        error. That is what vLLM does on SIGTERM.
        """
        self.draining = True
        if timeout > 0:
            try:
                await asyncio.wait_for(self._idle.wait(), timeout)
            except TimeoutError:
                self._dies = True
        self._stopped.set()
        await self._idle.wait()

    async def run(
        self, tokens: Sequence[str], prompt_tokens: int, finish: str
    ) -> AsyncIterator[Step]:
        """Give the tokens one by one, as soon as it is this answer's turn.

        Args:
            tokens: Of the whole answer.
            prompt_tokens: Length of the prompt.
            finish: Why it ends after the last of them.

        Raises:
            ApiError: 500: the engine goes down before the end.
        """
        asked, given = time.monotonic(), 0
        async with self._turn(prompt_tokens):
            began = due = time.monotonic()
            first = before = 0.0
            for given, token in enumerate(tokens, start=1):
                due += self._delay(given)
                if not await self._wait_until(due):
                    self._end(asked, began, first or began, prompt_tokens, given - 1, "abort")
                    yield Step("", "abort")
                    return
                now = time.monotonic()
                first = first or now
                self._count(given, now - (before or asked), prompt_tokens)
                before = now
                last = given == len(tokens)
                if last:
                    self._end(asked, began, first, prompt_tokens, given, finish)
                yield Step(token, finish if last else None)

    def _delay(self, number: int) -> float:
        slower = self.faults.now().get("slow", 1.0)
        return slower * (self.pace.first_token if number == 1 else 1 / self.pace.tokens_per_second)

    async def _wait_until(self, due: float) -> bool:
        """Wait for a token's time; False if the engine was told to abort meanwhile."""
        while "hang" in self.faults.now() and not self._stopped.is_set():
            await asyncio.sleep(0.05)
        try:
            await asyncio.wait_for(self._stopped.wait(), max(0.0, due - time.monotonic()))
        except TimeoutError:
            return True
        if self._dies:
            raise internal(ENGINE_DIED)
        return False

    @asynccontextmanager
    async def _turn(self, prompt_tokens: int) -> AsyncIterator[None]:
        """A place among those that run; its wait and its work are counted, however it ends."""
        self.open += 1
        self._idle.clear()
        waiting = (self.metrics.waiting, self.metrics.waiting_for["capacity"])
        asked = time.monotonic()
        try:
            for gauge in waiting:
                gauge.inc()
            try:
                await self._slots.acquire()
            finally:
                for gauge in waiting:
                    gauge.dec()
            self.metrics.queued.observe(time.monotonic() - asked)
            self.metrics.running.inc()
            self._hold(prompt_tokens)
            try:
                yield
            finally:
                self._hold(-prompt_tokens)
                self.metrics.running.dec()
                self._slots.release()
        finally:
            self.open -= 1
            if self.open == 0:
                self._idle.set()

    def _hold(self, tokens: int) -> None:
        self._cached += tokens
        room = self.faults.now().get("small_cache", self._cache_tokens)
        self.metrics.cache_usage.set(min(1.0, self._cached / room))
        if tokens > 0 and self._cached > room:  # vLLM would begin one of them anew
            self.metrics.preemptions.inc()

    def _count(self, given: int, seconds: float, prompt_tokens: int) -> None:
        if given == 1:
            self.metrics.first_token.observe(seconds)
            self.metrics.prompt_tokens.inc(prompt_tokens)
            self.metrics.iteration.observe(prompt_tokens + 1)
        else:
            self.metrics.between_tokens.observe(seconds)
            self.metrics.iteration.observe(1)
        self.metrics.generation_tokens.inc()
        self._made += 1
        if self._made >= self.faults.now().get("crash_after_tokens", float("inf")):
            print("Segmentation fault (fault crash_after_tokens)", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    def _end(
        self, asked: float, began: float, first: float, prompt: int, given: int, why: str
    ) -> None:
        now = time.monotonic()
        self.metrics.finished[why].inc()
        self.metrics.whole.observe(now - asked)
        self.metrics.inference.observe(now - began)
        self.metrics.prefill.observe(first - began)
        self.metrics.decode.observe(now - first)
        self.metrics.per_token.observe((now - first) / max(1, given - 1))
        self.metrics.prompt_size.observe(prompt)
        self.metrics.generation_size.observe(given)
