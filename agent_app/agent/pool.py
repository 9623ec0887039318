"""The engines of one model: choose the least busy, put failing ones aside, retry what failed."""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import structlog

from agent_app.agent.conversation import CHARACTERS_PER_TOKEN
from agent_app.agent.engine import Chunk, EngineFailure, stream_completion, stream_lines
from agent_app.agent.events import Queued
from agent_app.agent.queue_terms import Flow
from agent_app.agent.shown import Shown
from agent_app.agent.turnstile import Place, Turnstile
from agent_app.config import Limits, Model
from agent_app.errors import EngineRefused, EngineUnavailable, NotOffered
from agent_app.observability import metrics
from agent_app.observability.attempt import AttemptWatch

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 3.0
FIRST_EJECTION_SECONDS = 1.0
LONGEST_EJECTION_SECONDS = 10.0
NOT_OFFERED = frozenset({"status_404", "status_405", "status_501"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """An attempt failed: what came of it so far is void."""

    calls_only: bool = False
    """But for the text, which stands: another engine goes on with it."""


@dataclass(slots=True)
class Endpoint:
    """One engine and what we know of it."""

    url: str
    in_flight: int = 0
    failures: int = 0
    ejected_until: float = 0.0

    def failed(self) -> None:
        """Put it aside for a moment, longer each time."""
        pause = min(FIRST_EJECTION_SECONDS * 2.0**self.failures, LONGEST_EJECTION_SECONDS)
        self.failures = min(self.failures + 1, 10)
        self.ejected_until = time.monotonic() + pause

    def succeeded(self) -> None:
        """Take it back at once."""
        self.failures = 0
        self.ejected_until = 0.0


@dataclass(slots=True)
class _Patience:
    """What is left of the time and the attempts of one completion."""

    limits: Limits
    wait_seconds: float
    started: float = field(default_factory=time.monotonic)
    pauses: int = 0
    attempts: int = 0
    retractions: int = 0

    def spend(self, failure: EngineFailure, *, shown: bool, mendable: bool) -> float:
        """Return how long to pause before the next attempt.

        Args:
            failure: Of the last attempt.
            shown: It had shown something: an engine that speaks is none that is waited for.
            mendable: What was shown can be withdrawn or gone on with.

        Raises:
            EngineUnavailable: Time, attempts or retractions are used up.
        """
        self.attempts += failure.reached
        self.retractions += shown
        if shown:
            self.started = time.monotonic()
        pause: float = min(FIRST_PAUSE_SECONDS * 2.0**self.pauses, LONGEST_PAUSE_SECONDS)
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self.pauses = min(self.pauses + 1, 10)
        exhausted = (
            time.monotonic() + pause - self.started > self.wait_seconds
            or self.attempts >= self.limits.engine_attempts
            or self.retractions > self.limits.retractions
            or not mendable
        )
        if exhausted:
            raise _unavailable(failure) from failure
        return pause


def _unavailable(failure: EngineFailure) -> EngineUnavailable:
    return EngineUnavailable(
        "no engine could finish the answer", place=str(failure), cure="try again shortly"
    )


def _refused(failure: EngineFailure) -> EngineRefused:
    return EngineRefused(
        "the engine refused the request", place=failure.detail, cure="shorten or correct it"
    )


class EnginePool:
    """All engines that serve one model.

    Args:
        name: The served name.
        model: Its endpoints and bounds.
        limits: How long and how often to try.
        client: Shared HTTP client, without retries of its own.
    """

    def __init__(self, name: str, model: Model, limits: Limits, client: httpx2.AsyncClient) -> None:
        self.name = name
        self.model = model
        self._limits = limits
        self._client = client
        self._stream_options = {"include_usage": True}
        if model.usage_per_chunk:  # so that an answer cut short is still counted
            self._stream_options["continuous_usage_stats"] = True
        self.turnstile: Turnstile | None = None
        """Set where steps take turns; without it all go through at once."""
        self.endpoints = [Endpoint(str(url).rstrip("/")) for url in model.endpoints]

    async def stream(
        self,
        body: dict[str, Any],
        *,
        request_ids: Iterator[str],
        may_retract: bool,
        flow: Flow,
        shows_calls: bool = False,
        wait_seconds: float | None = None,
    ) -> AsyncGenerator[Queued | Chunk | Withdrawn, None]:
        """Stream one completion, through as many attempts as it takes and the limits allow.

        A step waits at the turnstile once; it keeps its place through all attempts.

        Args:
            body: The request; the model's name is filled in here.
            request_ids: The next value names the next attempt to the engine.
            may_retract: Whether shown text can be withdrawn and begun anew. If not, another engine
                goes on from it, where the model's engines can.
            flow: Whose turn it takes.
            shows_calls: The client gets calls of tools as they come, and not only text.
            wait_seconds: How long engines may fail; None: `engine_wait_seconds`.

        Raises:
            QueueFull: Engines are full and too many wait already.
            QueueTimeout: No place came free in time.
            EngineUnavailable: No engine finished it in time.
            EngineRefused: The request itself is at fault.
        """
        place = self._ask(body["messages"], body.get("max_tokens"), flow)
        try:
            async with aclosing(place.wait()) as positions:
                async for queued in positions:
                    yield queued
            if self.model.engine_priority:
                body = {**body, "priority": int(place.tag)}
            most = self._limits.engine_wait_seconds if wait_seconds is None else wait_seconds
            patience = _Patience(self._limits, most)
            attempts = self._attempts(
                place,
                body,
                request_ids,
                patience,
                may_retract=may_retract,
                shows_calls=shows_calls,
            )
            async with aclosing(attempts) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            place.leave()

    async def _attempts(
        self,
        place: Place,
        body: dict[str, Any],
        request_ids: Iterator[str],
        patience: _Patience,
        *,
        may_retract: bool,
        shows_calls: bool,
    ) -> AsyncGenerator[Chunk | Withdrawn, None]:
        shown, request = Shown(calls=shows_calls), body
        while True:
            endpoint = self._choose()
            waited = time.monotonic() - patience.started
            try:
                async with aclosing(self._attempt(endpoint, request, next(request_ids))) as chunks:
                    async for chunk in chunks:
                        if chunk.text or chunk.tool_calls or chunk.usage:
                            place.count(chunk.usage)
                        yield shown.see(chunk)
                metrics.ENGINE_WAIT.labels(self.name).observe(waited)
                return
            except EngineFailure as failure:
                self._note(endpoint, failure)
                if failure.permanent:
                    raise (_refused if request is body else _unavailable)(failure) from failure
                goes_on = shown.can_go_on(body, engines_do=self.model.continues)
                if shown and not may_retract:  # nobody else can finish it
                    patience.wait_seconds = self._limits.engine_wait_seconds
                mendable = may_retract or goes_on
                pause = patience.spend(failure, shown=shown.fresh, mendable=mendable)
            yield Withdrawn(calls_only=not (shown and may_retract))
            if may_retract:
                shown = Shown(calls=shows_calls)
            else:
                rest = shown.rest(body)
                if rest is None:  # but the word that it is over
                    yield Chunk(finish_reason="length")
                    return
                if rest is not body:
                    metrics.ANSWERS_CONTINUED.labels(self.name).inc()
                request = rest
            place.retry()
            await asyncio.sleep(pause if self._all_ejected() else 0)

    async def relay(
        self, path: str, body: dict[str, Any], *, request_ids: Iterator[str], flow: Flow
    ) -> AsyncGenerator[str, None]:
        """Yield the lines of one engine's own stream, an empty one first; see `stream_lines`.

        It is tried elsewhere until an engine takes it on, and not after that: what was relayed
        cannot be withdrawn.

        Raises:
            EngineUnavailable: No engine took it on in time, or the one that did failed.
            EngineRefused: The request itself is at fault.
            QueueFull: Engines are full and too many wait already.
            QueueTimeout: No place came free in time.
            NotOffered: The engine does not know the path.
        """
        place = self._ask(body.get("input"), body.get("max_output_tokens"), flow)
        try:
            async with aclosing(place.wait()) as positions:
                async for _ in positions:
                    pass  # the client's line is kept alive while it is silent
            async with aclosing(self._relay(path, body, request_ids, place)) as lines:
                async for line in lines:
                    yield line
        finally:
            place.leave()

    async def _relay(
        self, path: str, body: dict[str, Any], request_ids: Iterator[str], place: Place
    ) -> AsyncGenerator[str, None]:
        patience = _Patience(self._limits, self._limits.engine_wait_seconds)
        while True:
            shown = False
            endpoint = self._choose()
            lines = stream_lines(
                self._client,
                f"{endpoint.url}{path}",
                {**body, "model": self.name, "stream": True},
                {"X-Request-Id": next(request_ids)},
            )
            try:
                with self._borrowed(endpoint):
                    async with aclosing(lines):
                        async for line in lines:
                            shown = shown or bool(line)
                            if line.startswith("data:"):
                                place.count(None)
                            yield line
                endpoint.succeeded()
                return
            except EngineFailure as failure:
                if failure.reason in NOT_OFFERED:
                    raise NotOffered(
                        f"the engines of {self.name} do not offer {path}; use /v1/chat/completions"
                    ) from failure
                self._note(endpoint, failure)
                if failure.permanent:
                    raise _refused(failure) from failure
                pause = patience.spend(failure, shown=shown, mendable=not shown)
            place.retry()
            await asyncio.sleep(pause if self._all_ejected() else 0)

    def _ask(self, said: Any, most: int | None, flow: Flow) -> Place:
        """Ask for a place: `said` is a text or messages, `most` the answer's tokens."""
        if self.turnstile is None:
            return Place(None, flow, 0, 0)
        prompt = len(json.dumps(said, ensure_ascii=False)) // CHARACTERS_PER_TOKEN
        return self.turnstile.ask(flow, prompt=prompt, most=most or self.model.max_output_tokens)

    def capacity(self) -> int:
        """Return how many completions fit engines take now, 0 for any number.

        One counts even while all are put aside: somebody has to find out that they are back.
        """
        now = time.monotonic()
        fit = sum(endpoint.ejected_until <= now for endpoint in self.endpoints)
        return self.model.concurrency * max(1, fit)

    async def probe(self, request_id: str) -> None:
        """Ask for one token, once, from the engine a request would go to.

        Raises:
            EngineFailure: It did not come.
        """
        body = {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
        endpoint = self._choose()
        try:
            async with aclosing(self._attempt(endpoint, body, request_id)) as chunks:
                async for _ in chunks:
                    pass
        except EngineFailure as failure:
            self._note(endpoint, failure)
            raise

    async def _attempt(
        self, endpoint: Endpoint, body: dict[str, Any], request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        whole = {
            **body,
            "model": self.name,
            "stream": True,
            "stream_options": self._stream_options,
        }
        with self._borrowed(endpoint), AttemptWatch(self.name, endpoint.url, whole) as watch:
            headers = {"X-Request-Id": request_id, **watch.headers}
            async with aclosing(
                stream_completion(self._client, endpoint.url, whole, headers)
            ) as chunks:
                async for chunk in chunks:
                    watch.saw(chunk)
                    yield chunk
                    watch.passed_on()
        endpoint.succeeded()

    def _choose(self) -> Endpoint:
        now = time.monotonic()
        fit = [endpoint for endpoint in self.endpoints if endpoint.ejected_until <= now]
        if fit:
            return min(fit, key=lambda endpoint: (endpoint.in_flight, random.random()))  # noqa: S311
        return min(self.endpoints, key=lambda endpoint: endpoint.ejected_until)

    def _all_ejected(self) -> bool:
        now = time.monotonic()
        return all(endpoint.ejected_until > now for endpoint in self.endpoints)

    def _note(self, endpoint: Endpoint, failure: EngineFailure) -> None:
        if failure.permanent:
            return
        endpoint.failed()
        metrics.ENGINE_FAILURES.labels(self.name, failure.reason).inc()
        log.warning(
            "engine_failed", endpoint=endpoint.url, reason=failure.reason, detail=failure.detail
        )

    @contextmanager
    def _borrowed(self, endpoint: Endpoint) -> Iterator[None]:
        gauge = metrics.ENGINE_IN_FLIGHT.labels(self.name, endpoint.url)
        endpoint.in_flight += 1
        gauge.inc()
        try:
            yield
        finally:
            endpoint.in_flight -= 1
            gauge.dec()
