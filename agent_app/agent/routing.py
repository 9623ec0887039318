"""Where each step of a run goes: the model's own engines first, a cloud by policy.

Degradation: our engines are down, failing or full. Escalation: they answered, but badly. Nothing of
a resident key, or of a thread that one began, ever goes to a cloud.
"""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from agent_app.access.admission import Visit
from agent_app.agent.answer import Answer
from agent_app.agent.cloud import CloudEngine
from agent_app.agent.engine import Chunk, EngineFailure
from agent_app.agent.events import NO_USAGE, Queued, Usage
from agent_app.agent.outing import Outing, Outings
from agent_app.agent.pool import EnginePool, Withdrawn
from agent_app.agent.quality import find_fault
from agent_app.config import Limits, Model
from agent_app.config import Route as Policy
from agent_app.errors import AgentAppError, DatabaseUnavailable, EngineUnavailable, Overloaded

REFUSED_OF_A_CLOUD = {
    "resident": "this key's data stays on our hosts, so no cloud was asked",
    "cloud_budget": "this key's budget at the cloud is spent for the month",
    "breaker": "the cloud has failed lately and is left alone for a moment",
    "budget_medium": "this key is beyond its medium budget, so no cloud was asked",
}


@dataclass(frozen=True, slots=True)
class Errand:
    """Whose run it is, and what may be done for it."""

    visit: Visit
    run_id: UUID
    thread_id: UUID | None
    correlation: str
    resident: bool
    """The key's data, or the thread's, stays on our own hosts."""
    shows_calls: bool = False
    """The client sees tool calls as they come: it brought the tools."""


@dataclass(slots=True)
class _Step:
    """One completion under way: what of it the listener has, and what comes next."""

    body: dict[str, Any]
    request_ids: Iterator[str]
    may_retract: bool
    shows_calls: bool
    queueing: dict[str, Any]
    policy: Policy
    cloud: CloudEngine
    answer: Answer = field(default_factory=lambda: Answer(""))
    chunks: list[Chunk] = field(default_factory=list)
    shown: bool = False
    done: bool = False
    cloud_tried: bool = False
    patience: float | None = None
    """Of our engines, where the cloud comes after them."""
    trouble: AgentAppError | None = None
    why: str = ""
    """The reason to leave our engines."""

    def see(self, chunk: Chunk) -> None:
        """Note what the listener has got."""
        self.answer.add(chunk)
        self.chunks.append(chunk)
        self.shown = self.shown or bool(chunk.text or (chunk.tool_calls and self.shows_calls))

    def begin_anew(self, *, calls_only: bool = False) -> None:
        """Forget what was withdrawn."""
        self.answer.withdraw(calls_only=calls_only)
        if calls_only:
            self.chunks = [replace(chunk, tool_calls=()) for chunk in self.chunks]
        else:
            self.chunks, self.shown = [], False

    @property
    def stuck(self) -> bool:
        """A client has seen what cannot be withdrawn."""
        return self.shown and not self.may_retract


Chunks = AsyncGenerator[Queued | Chunk | Withdrawn, None]


class Route:
    """What a run asks for completions instead of the pool itself.

    Args:
        pool: The model's own engines.
        policy: When to leave them; None: never.
        cloud: Where to.
        outings: Admits and accounts for each request to a cloud.
        errand: For whom.
        limits: The configuration's.
    """

    def __init__(
        self,
        pool: EnginePool,
        policy: Policy | None,
        cloud: CloudEngine | None,
        outings: Outings,
        errand: Errand,
        limits: Limits,
    ) -> None:
        self.pool = pool
        self.errand = errand
        self.elsewhere: Usage = NO_USAGE
        """Of the run's usage, what clouds answered; it is counted already."""
        self.elsewhere_seconds = 0.0
        self.answered_here = True
        """Whether our own engine gave the last answer."""
        self._policy = policy if cloud else None
        self._cloud = cloud
        self._outings = outings
        self._limits = limits

    @property
    def name(self) -> str:
        """The served name of the model."""
        return self.pool.name

    @property
    def model(self) -> Model:
        """Its bounds."""
        return self.pool.model

    def stream(
        self,
        body: dict[str, Any],
        *,
        request_ids: Iterator[str],
        may_retract: bool,
        **queueing: Any,
    ) -> Chunks:
        """Stream one completion from wherever it goes; as `EnginePool.stream`.

        Args:
            body: The request.
            request_ids: Name each attempt.
            may_retract: Whether shown text can be withdrawn.
            queueing: What the pool wants besides, handed on as it is.

        Raises:
            EngineUnavailable: Nobody could finish it, or it may not go where it could be.
            EngineRefused: The request itself is at fault.
        """
        if self._policy is None or self._cloud is None:
            return self.pool.stream(
                body,
                request_ids=request_ids,
                may_retract=may_retract,
                shows_calls=self.errand.shows_calls,
                **queueing,
            )
        step = _Step(
            body,
            request_ids,
            may_retract,
            self.errand.shows_calls,
            queueing,
            self._policy,
            self._cloud,
        )
        return self._go(step)

    async def _go(self, step: _Step) -> Chunks:
        """The cloud first where it is the cheaper way, our engines, the cloud in their stead."""
        self.answered_here = True
        for stage in (self._cloud_first, self._engines_first, self._instead):
            async with aclosing(stage(step)) as chunks:
                async for chunk in chunks:
                    yield chunk
            if step.done:
                return

    async def _cloud_first(self, step: _Step) -> Chunks:
        """For a key beyond its medium budget, by policy; quiet where it does not work."""
        if step.policy.over_medium != "cloud" or self.errand.visit.level != "medium":
            return
        outing, _ = await self._open(step, "budget_medium")
        if outing is None:
            return
        step.cloud_tried = True
        try:
            async with aclosing(self._away(step, outing)) as chunks:
                async for chunk in chunks:
                    step.see(chunk)
                    yield chunk
            step.done = True
        except EngineFailure as failure:
            if step.stuck:
                raise EngineUnavailable(
                    "the cloud could not finish the answer", cure="try again shortly"
                ) from failure
            if step.chunks:
                yield Withdrawn()
            step.begin_anew()

    async def _engines_first(self, step: _Step) -> Chunks:
        """Our engines, and what there is to say against how it went."""
        step.patience = self._patience(step)
        try:
            if step.patience is not None and _all_ejected(self.pool):
                raise EngineUnavailable("no engine could finish the answer")
            async with aclosing(self._here(step, step.patience)) as chunks:
                async for chunk in chunks:
                    yield chunk
            step.why = self._find_fault(step)
        except (EngineUnavailable, Overloaded) as error:
            step.trouble = error
            step.why = "busy" if isinstance(error, Overloaded) else "unavailable"
            if step.cloud_tried or step.why not in step.policy.degrade_on:
                raise
        step.done = not step.why

    async def _instead(self, step: _Step) -> Chunks:
        """The cloud in the place of our engines, or the reason why not."""
        outing, barred = await self._open(step, step.why)
        if outing is not None:
            stream = self._replace(step, outing)
        elif step.trouble is None:
            return  # a fault that nobody may mend: the answer stands
        elif step.patience is None or step.stuck:
            raise _explain(step.trouble, barred)
        else:  # no cloud after all, so our engines get the patience they always have
            stream = self._here_anew(step)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _here(self, step: _Step, patience: float | None) -> Chunks:
        stream = self.pool.stream(
            step.body,
            request_ids=step.request_ids,
            may_retract=step.may_retract,
            shows_calls=step.shows_calls,
            wait_seconds=patience,
            **step.queueing,
        )
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Withdrawn):
                    step.begin_anew(calls_only=chunk.calls_only)
                elif isinstance(chunk, Chunk):
                    step.see(chunk)
                yield chunk

    async def _here_anew(self, step: _Step) -> Chunks:
        if step.chunks:
            yield Withdrawn()
        step.begin_anew()
        async with aclosing(self._here(step, None)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _away(self, step: _Step, outing: Outing) -> AsyncGenerator[Chunk, None]:
        started = time.monotonic()
        async with aclosing(outing.stream(step.body, next(step.request_ids))) as chunks:
            async for chunk in chunks:
                yield chunk
        self.answered_here = False
        self.elsewhere += outing.usage
        self.elsewhere_seconds += time.monotonic() - started

    async def _replace(self, step: _Step, outing: Outing) -> Chunks:
        """Put the cloud's answer in the place of ours; ours comes back if it does not finish."""
        replaced = False
        try:
            async with aclosing(self._away(step, outing)) as chunks:
                async for chunk in chunks:
                    if not replaced and step.chunks:
                        yield Withdrawn()
                    replaced = True
                    yield chunk
        except EngineFailure as failure:
            if step.trouble is not None:
                raise EngineUnavailable(
                    "neither our engines nor the cloud could finish the answer",
                    place=f"{step.trouble.place}; {outing.cloud.name}: {failure.reason}",
                    cure="try again shortly",
                ) from failure
            if replaced:
                yield Withdrawn()
                for chunk in step.chunks:
                    yield chunk

    async def _open(self, step: _Step, why: str) -> tuple[Outing | None, str]:
        try:
            return await self._outings.open(
                self.errand, self.name, step.cloud, why, step.body, barred=self._bar(step)
            )
        except DatabaseUnavailable:
            if step.trouble is not None:
                raise
            return None, "database"  # our engines can do without it, or have done

    def _patience(self, step: _Step) -> float | None:
        """Return how long our engines may fail, None where no cloud would come after them."""
        could_go = (
            "unavailable" in step.policy.degrade_on
            and not step.cloud_tried
            and not self._bar_for_good(step.policy)
            and step.cloud.breaker.lets_through
        )
        if not could_go:
            return None
        failing = all(endpoint.failures for endpoint in self.pool.endpoints)
        return 0.0 if failing else step.policy.local_seconds

    def _bar_for_good(self, policy: Policy) -> str:
        if self.errand.resident:
            return "resident"
        medium = self.errand.visit.level == "medium"
        return "budget_medium" if medium and policy.over_medium != "cloud" else ""

    def _bar(self, step: _Step) -> str:
        """Return what forbids the cloud now, or ""."""
        if barred := self._bar_for_good(step.policy):
            return barred
        if step.stuck:
            return "shown"
        return "" if step.cloud.breaker.lets_through else "breaker"

    def _find_fault(self, step: _Step) -> str:
        if not step.policy.escalate_on or step.cloud_tried:
            return ""
        fault = find_fault(
            step.answer.message,
            step.answer.finish_reason,
            step.body,
            identical_calls=self._limits.identical_calls,
        )
        return fault if fault in step.policy.escalate_on else ""


def _all_ejected(pool: EnginePool) -> bool:
    now = time.monotonic()
    return all(endpoint.ejected_until > now for endpoint in pool.endpoints)


def _explain(trouble: AgentAppError, barred: str) -> AgentAppError:
    """Return the error with the reason why no cloud helped."""
    if barred not in REFUSED_OF_A_CLOUD:
        return trouble
    return type(trouble)(
        f"{trouble.message}; {REFUSED_OF_A_CLOUD[barred]}",
        place=trouble.place,
        cure=trouble.cure,
        headers=trouble.headers,
    )
