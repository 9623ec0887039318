"""The engines of one model: choose the least busy, put failing ones aside, retry what failed."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import structlog

from agent_app.agent.engine import Chunk, EngineFailure, stream_completion
from agent_app.config import Limits, Model
from agent_app.errors import EngineRefused, EngineUnavailable
from agent_app.observability import metrics

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 3.0
FIRST_EJECTION_SECONDS = 1.0
LONGEST_EJECTION_SECONDS = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Chunks of this completion so far are void: it starts anew."""


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
    started: float = field(default_factory=time.monotonic)
    pauses: int = 0
    attempts: int = 0
    retractions: int = 0

    def spend(self, failure: EngineFailure, *, shown: bool, may_retract: bool) -> float:
        """Return how long to pause before the next attempt.

        Raises:
            EngineRefused: The request itself is at fault.
            EngineUnavailable: Time, attempts or retractions are used up.
        """
        if failure.permanent:
            raise EngineRefused(
                "the engine refused the request", place=failure.detail, cure="shorten or correct it"
            ) from failure
        self.attempts += failure.reached
        self.retractions += shown
        pause: float = min(FIRST_PAUSE_SECONDS * 2.0**self.pauses, LONGEST_PAUSE_SECONDS)
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self.pauses = min(self.pauses + 1, 10)
        exhausted = (
            time.monotonic() + pause - self.started > self.limits.engine_wait_seconds
            or self.attempts >= self.limits.engine_attempts
            or self.retractions > self.limits.retractions
            or (shown and not may_retract)
        )
        if exhausted:
            raise EngineUnavailable(
                "no engine could finish the answer", place=str(failure), cure="try again shortly"
            ) from failure
        return pause


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
        self.endpoints = [Endpoint(str(url).rstrip("/")) for url in model.endpoints]

    async def stream(
        self, body: dict[str, Any], *, request_ids: Iterator[str], may_retract: bool
    ) -> AsyncGenerator[Chunk | Withdrawn, None]:
        """Stream one completion, through as many attempts as it takes and the limits allow.

        Args:
            body: The request; the model's name is filled in here.
            request_ids: The next value names the next attempt to the engine.
            may_retract: Whether shown text can be withdrawn and begun anew.

        Raises:
            EngineUnavailable: No engine finished it in time.
            EngineRefused: The request itself is at fault.
        """
        patience = _Patience(self._limits)
        while True:
            shown = False
            endpoint = self._choose()
            try:
                async with aclosing(self._attempt(endpoint, body, next(request_ids))) as chunks:
                    async for chunk in chunks:
                        shown = shown or bool(chunk.text or chunk.tool_calls)
                        yield chunk
                return
            except EngineFailure as failure:
                self._note(endpoint, failure)
                pause = patience.spend(failure, shown=shown, may_retract=may_retract)
            if shown:
                yield Withdrawn()
            await asyncio.sleep(pause if self._all_ejected() else 0)

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
            "stream_options": {"include_usage": True},
        }
        headers = {"X-Request-Id": request_id}
        with self._borrowed(endpoint):
            async with aclosing(
                stream_completion(self._client, endpoint.url, whole, headers)
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
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
