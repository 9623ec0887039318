"""Answers from before: the same request, or by choice the same question in other words.

An answer belongs to its key, and to the whole request as the engine gets it: model and revision,
system prompt, history, tools, sampling. Only the first step of a run is looked up, and nothing
where tools have run: their effects and results are of their moment.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from agent_app.agent.answer import Answer
from agent_app.agent.engine import Chunk
from agent_app.agent.events import NO_USAGE, Queued, Usage
from agent_app.agent.pool import Withdrawn
from agent_app.agent.routing import Route
from agent_app.agent.semantic import SameQuestion
from agent_app.config import Cache, Model
from agent_app.observability import metrics
from agent_app.state.responses import CacheAway, Responses

PIECE_CHARACTERS = 40
"""A cached answer streams in pieces of this size."""
QUEUEING = frozenset({"priority"})
"""Parameters that decide when an answer comes, not what it says."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the client wants of the cache."""

    lookup: bool = True
    keep: bool = True
    sampled: bool = False
    """An answer drawn before will do, although the temperature is above 0."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answer is an answer to."""

    name: str
    """Hash of the whole request."""
    context: str
    """Hash of all of it but the last user message."""
    question: str
    """That message, or "" where it is not plain text."""


def identify(model: str, revision: str, body: dict[str, Any]) -> Identity:
    """Return the identity of a request."""
    request = {name: value for name, value in body.items() if name not in QUEUEING}
    last = request["messages"][-1]
    plain = last["role"] == "user" and isinstance(last["content"], str)
    rest = {**request, "messages": [*request["messages"][:-1], {**last, "content": None}]}
    return Identity(
        _hash(model, revision, request),
        _hash(model, revision, rest),
        last["content"] if plain else "",
    )


def _hash(model: str, revision: str, request: dict[str, Any]) -> str:
    whole = json.dumps([1, model, revision, request], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()


class CachedRoute:
    """A route that looks for the answer first; its face is the route's.

    Args:
        route: Asked where there is none.
        responses: What was kept.
        config: What is looked for.
        same: Finds the question in other words; None: nobody looks.
        wish: The client's.
        tell: Called once with `hit`, `miss` or `bypass`, before the first chunk.
        resumed: The run goes on from a checkpoint.
    """

    def __init__(
        self,
        route: Route,
        responses: Responses,
        config: Cache,
        same: SameQuestion | None,
        wish: Wish,
        tell: Callable[[str], None],
        *,
        resumed: bool,
    ) -> None:
        self._route = route
        self._responses = responses
        self._config = config
        self._same = same
        self._wish = wish
        self._tell = tell
        self._why_not = "resumed" if resumed else ""
        self._key = route.errand.visit.key

    @property
    def name(self) -> str:
        """The served name of the model."""
        return self._route.name

    @property
    def model(self) -> Model:
        """Its bounds."""
        return self._route.model

    @property
    def elsewhere(self) -> Usage:
        """Of the run's usage, what clouds answered."""
        return self._route.elsewhere

    @property
    def elsewhere_seconds(self) -> float:
        """How long they took."""
        return self._route.elsewhere_seconds

    async def stream(
        self,
        body: dict[str, Any],
        *,
        request_ids: Iterator[str],
        may_retract: bool,
        **queueing: Any,
    ) -> AsyncGenerator[Queued | Chunk | Withdrawn, None]:
        """Stream the answer from before, or the route's, which may then be kept."""
        onward = self._route.stream(  # begins only when it is read
            body, request_ids=request_ids, may_retract=may_retract, **queueing
        )
        bypass = self._why_bypass(body)
        self._why_not = "later_step"
        if bypass:
            if bypass != "later_step":
                metrics.CACHE.labels("all", "bypass", bypass).inc()
            self._tell("bypass")
            async with aclosing(onward) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        identity = identify(self.name, self.model.revision, body)
        text, spent = await self._find(identity, request_ids, queueing)
        if text is not None:
            for piece in _as_chunks(text, replace(spent, cached=True)):
                yield piece
            return
        answer = Answer("")
        async with aclosing(onward) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Queued):
                    yield chunk
                    continue
                if isinstance(chunk, Withdrawn):
                    answer.withdraw(calls_only=chunk.calls_only)
                    yield chunk
                    continue
                answer.add(chunk)
                if chunk.usage and spent.total:
                    chunk = replace(chunk, usage=chunk.usage + spent)  # noqa: PLW2901
                yield chunk
        await self._keep(identity, answer)

    def _why_bypass(self, body: dict[str, Any]) -> str:
        if self._why_not:
            return self._why_not
        if not self._wish.keep:
            return "no_store"
        if body["temperature"] > 0 and not self._wish.sampled:
            return "sampled"
        if any(m["role"] == "tool" or m.get("tool_calls") for m in body["messages"]):
            return "tools"
        return ""

    async def _find(
        self, identity: Identity, request_ids: Iterator[str], queueing: dict[str, Any]
    ) -> tuple[str | None, Usage]:
        """Return the answer from before, if there is one, and what looking for it cost."""
        text, spent = None, NO_USAGE
        try:
            if not self._wish.lookup:
                metrics.CACHE.labels("all", "bypass", "no_cache").inc()
                self._tell("bypass")
                return None, spent
            if self._config.exact:
                text = await self._responses.find(self._key, identity.name)
                metrics.CACHE.labels("exact", "miss" if text is None else "hit", "").inc()
            if text is None and self._same is not None:
                text, spent = await self._same.find(
                    self._route, identity.context, identity.question, request_ids, queueing
                )
        except CacheAway:
            metrics.CACHE.labels("all", "bypass", "redis").inc()
            self._tell("bypass")
            return None, spent
        self._tell("miss" if text is None else "hit")
        return text, spent

    async def _keep(self, identity: Identity, answer: Answer) -> None:
        message = answer.message
        fit = (
            answer.finish_reason == "stop"
            and bool(message["content"])
            and not message.get("tool_calls")
            and self._route.answered_here
        )
        if not fit:
            return
        try:
            await self._responses.keep(self._key, identity.name, message["content"])
        except CacheAway:
            return
        if self._same is not None:
            self._same.remember_later(
                self._route, identity.context, identity.question, identity.name
            )


class AnswerCache:
    """Puts the cache before routes.

    Args:
        responses: What was kept.
        config: What is looked for.
        same: Finds the question in other words, or None.
    """

    def __init__(self, responses: Responses, config: Cache, same: SameQuestion | None) -> None:
        self._responses = responses
        self._config = config
        self._same = same

    def before(
        self, route: Route, wish: Wish, tell: Callable[[str], None], *, resumed: bool
    ) -> CachedRoute:
        """Return the route with the cache before it."""
        return CachedRoute(
            route, self._responses, self._config, self._same, wish, tell, resumed=resumed
        )

    async def aclose(self) -> None:
        """Let go of what is still being remembered; a cache may lose it."""
        if self._same is not None:
            await self._same.aclose()


def _as_chunks(text: str, usage: Usage) -> Iterator[Chunk]:
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield Chunk(text=text[start : start + PIECE_CHARACTERS])
    yield Chunk(finish_reason="stop", usage=usage)
