"""One request to a cloud: admitted within a budget, audited before it leaves, accounted after."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import structlog

from agent_app.access.admission import Visit
from agent_app.agent.answer import Answer
from agent_app.agent.cloud import CloudEngine
from agent_app.agent.conversation import estimate
from agent_app.agent.engine import Chunk, EngineFailure
from agent_app.agent.events import NO_USAGE, Usage
from agent_app.config import Config
from agent_app.errors import DatabaseUnavailable
from agent_app.observability import metrics
from agent_app.state.audit import Audit
from agent_app.state.cloud_spend import CloudSpend

if TYPE_CHECKING:
    from agent_app.agent.routing import Errand

ACCOUNT_SECONDS = 2.0
NOWHERE = "none"

log = structlog.get_logger(__name__)


class Outings:
    """Admits requests to clouds and takes down every decision.

    Args:
        config: The budgets.
        spend: What is left of them.
        audit: An entry before anything leaves, and one when the answer is there.
    """

    def __init__(self, config: Config, spend: CloudSpend, audit: Audit) -> None:
        self._config = config
        self._spend = spend
        self._audit = audit

    async def open(
        self,
        errand: "Errand",
        model: str,
        cloud: CloudEngine,
        why: str,
        body: dict[str, Any],
        *,
        barred: str,
    ) -> "tuple[Outing | None, str]":
        """Admit one request, or say what bars it; either is in the audit when this returns.

        Args:
            errand: For whom.
            model: Whose engines it leaves.
            cloud: Where it goes.
            why: `unavailable`, `busy`, `budget_medium` or the fault of an answer.
            body: The request.
            barred: What forbids it already, or "".

        Raises:
            DatabaseUnavailable: It could not be audited, so it may not go.
        """
        key_id, upper = errand.visit.key.id, _upper_bound(body)
        if not barred:
            barred = await self._reserve(errand, model, cloud, upper.total)
        decision = {
            "from": model,
            "to": NOWHERE if barred else cloud.name,
            "why": why,
            "model": model if barred else cloud.config.model,
            "cost": 0.0 if barred else cloud.cost(upper),
            **({"barred_by": barred} if barred else {}),
        }
        metrics.ROUTES.labels(model, decision["to"], why, barred).inc()
        try:
            await self._record(errand, "route.choose", decision)
        except BaseException:
            if not barred:
                self._spend.release(key_id, cloud.name, upper.total)
            raise
        if barred:
            return None, barred
        return Outing(self, errand, cloud, upper), ""

    async def note_move(self, visit: Visit, model: str, cheaper: str, correlation: str) -> None:
        """Take down that a run begins on a cheaper model of ours."""
        metrics.ROUTES.labels(model, cheaper, "budget_medium", "").inc()
        details = {
            "from": model,
            "to": cheaper,
            "why": "budget_medium",
            "model": cheaper,
            "cost": 0,
        }
        await self._audit.record(
            "route.choose", key_id=visit.key.id, correlation=correlation, details=details
        )

    async def settle(self, outing: "Outing", outcome: str, seconds: float) -> None:
        """Write down what an outing used; what could not be written stays set aside here."""
        errand, cloud, usage = outing.errand, outing.cloud, outing.spent
        visit = errand.visit
        for kind, count in (
            ("prompt", usage.prompt_tokens),
            ("completion", usage.completion_tokens),
        ):
            metrics.TOKENS.labels(cloud.name, kind).inc(count)
            metrics.KEY_TOKENS.labels(cloud.name, visit.key.name, kind).inc(count)
        metrics.CLOUD_COST.labels(cloud.name).inc(cloud.cost(usage))
        details = {
            "to": cloud.name,
            "model": cloud.config.model,
            "outcome": outcome,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cost": cloud.cost(usage),
        }
        try:
            async with asyncio.timeout(ACCOUNT_SECONDS):
                if usage.total:
                    await self._spend.add(
                        visit.key.id, cloud.name, visit.feature, usage, seconds=seconds
                    )
                self._spend.release(visit.key.id, cloud.name, outing.upper.total)
                await self._record(errand, "route.answer", details)
        except (TimeoutError, DatabaseUnavailable) as error:
            log.warning("cloud_usage_lost", key=visit.key.name, why=str(error), **details)

    async def _reserve(self, errand: "Errand", model: str, cloud: CloudEngine, tokens: int) -> str:
        budget = self._config.routes[model].cloud_budget_tokens
        fits = await self._spend.reserve(errand.visit.key.id, cloud.name, tokens, budget=budget)
        return "" if fits else "cloud_budget"

    async def _record(self, errand: "Errand", kind: str, details: dict[str, Any]) -> None:
        await self._audit.record(
            kind,
            key_id=errand.visit.key.id,
            thread_id=errand.thread_id,
            run_id=errand.run_id,
            correlation=errand.correlation,
            details=details,
        )


class Outing:
    """A request that was admitted; `stream` it once."""

    def __init__(
        self, outings: Outings, errand: "Errand", cloud: CloudEngine, upper: Usage
    ) -> None:
        self.errand = errand
        self.cloud = cloud
        self.upper = upper
        self.usage: Usage = NO_USAGE
        """Tokens of the finished answer, as whoever reads its chunks counts them."""
        self.spent: Usage = NO_USAGE
        """What the cloud will have charged, by its count or by ours."""
        self._outings = outings

    async def stream(self, body: dict[str, Any], request_id: str) -> AsyncGenerator[Chunk, None]:
        """Stream the cloud's answer and account for it, however it ends.

        Raises:
            EngineFailure: It did not finish.
        """
        answer, outcome, started = Answer("", body["messages"]), "left", time.monotonic()
        reached = True
        try:
            async with aclosing(self.cloud.stream(body, request_id=request_id)) as chunks:
                async for chunk in chunks:
                    answer.add(chunk)
                    yield chunk
            outcome = "answered"
            self.usage = answer.usage
        except EngineFailure as failure:
            outcome = failure.reason
            reached = answer.usage.total > 0
            raise
        finally:
            counted = answer.usage
            if not reached:
                counted = NO_USAGE
            elif not counted.prompt_tokens:
                counted = Usage(estimate(body["messages"]), counted.completion_tokens)
            self.spent = counted
            await self._outings.settle(self, outcome, time.monotonic() - started)


def _upper_bound(body: dict[str, Any]) -> Usage:
    prompt = estimate(body["messages"]) + estimate(body.get("tools"))
    return Usage(prompt, int(body["max_tokens"]))
