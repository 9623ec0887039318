"""What a run passes before it begins and after it ends: budget, limits, and the bill."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog
from psycopg.errors import ForeignKeyViolation

from agent_app.access.keys import Key
from agent_app.access.limits import Gate, Grant
from agent_app.errors import BudgetSpent, DatabaseUnavailable, RateLimited
from agent_app.observability import metrics
from agent_app.observability.labels import key_label
from agent_app.state.audit import Audit
from agent_app.state.usage import Spent, UsageTable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """A run that was let in."""

    key: Key
    feature: str
    grant: Grant
    headers: dict[str, str]
    level: str = ""
    """The budget that the key's month has passed: soft, medium, or none."""


class Doorkeeper:
    """Lets runs in within budget and limits, and counts what they used."""

    def __init__(self, gate: Gate, usage: UsageTable, audit: Audit) -> None:
        self._gate = gate
        self._usage = usage
        self._audit = audit

    async def let_in(self, key: Key, feature: str, *, tokens: int) -> Visit:
        """Admit a run that may use so many tokens in its first step.

        Raises:
            BudgetSpent: The key's month is over its hard budget.
            RateLimited: A limit of the key is reached.
            DatabaseUnavailable: The key has a budget and nobody knows what is left of it.
        """
        try:
            grant = await self._gate.enter(key.id, key.limits, tokens=tokens)
            try:
                level = await self._budget_level(key, grant)
            except BaseException:
                await self._gate.leave(grant, used=0)
                raise
        except (RateLimited, BudgetSpent) as refusal:
            await self._audit.record_bounded("run.refuse", key_id=key.id, why=refusal.code)
            raise
        headers = {"X-Budget": level} if level == "medium" else {}
        return Visit(key, feature, grant, {**grant.headers, **headers}, level)

    async def turn_back(self, visit: Visit) -> None:
        """Take back the leave of a run that could not begin; it used nothing."""
        await self._gate.leave(visit.grant, used=0)

    async def see_off(self, visit: Visit, model: str, spent: Spent) -> None:
        """Settle with the limits and count what a run used."""
        usage, name = spent.here, key_label(visit.key.name)
        metrics.KEY_TOKENS.labels(model, name, "prompt").inc(usage.prompt_tokens)
        metrics.KEY_TOKENS.labels(model, name, "completion").inc(usage.completion_tokens)
        metrics.KEY_ENGINE_SECONDS.labels(model, name).inc(spent.engine_seconds)
        await self._gate.leave(visit.grant, used=spent.usage.total)

    async def count_stateless(
        self,
        visit: Visit,
        model: str,
        spent: Spent,
        *,
        run_id: UUID,
        status: str,
        correlation: str,
    ) -> None:
        """Write down the usage of a run that keeps no state; its answer does not wait on that."""
        details = {
            "status": status,
            "attempt": 1,
            "model": model,
            "feature": spent.feature,
            "prompt_tokens": spent.usage.prompt_tokens,
            "completion_tokens": spent.usage.completion_tokens,
        }
        await self._audit.record(
            "run.end",
            key_id=visit.key.id,
            run_id=run_id,
            correlation=correlation,
            details=details,
        )
        try:
            await self._usage.add(visit.key.id, model, spent)
        except (DatabaseUnavailable, ForeignKeyViolation) as error:  # the latter: an erased key
            log.warning("usage_lost", key=visit.key.name, tokens=spent.usage.total, why=str(error))

    async def renew(self) -> None:
        """Renew the leases of the runs under way."""
        await self._gate.renew()

    async def _budget_level(self, key: Key, grant: Grant) -> str:
        limits = grant.limits
        levels = (
            ("hard", limits.budget_hard),
            ("medium", limits.budget_medium),
            ("soft", limits.budget_soft),
        )
        if not any(budget for _, budget in levels):
            return ""
        used = await self._usage.month_tokens(key.id)
        level = next((name for name, budget in levels if budget and used >= budget), "")
        if level:
            metrics.BUDGET_PASSED.labels(key_label(key.name), level).inc()
            log.warning("budget_passed", key=key.name, level=level, tokens=used)
        if level == "hard":
            raise BudgetSpent(
                f"this key's budget of {limits.budget_hard} tokens a month is spent; "
                "it begins anew on the 1st (UTC)",
                headers={"Retry-After": str(_seconds_to_next_month()), "x-should-retry": "false"},
            )
        return level


def _seconds_to_next_month() -> int:
    now = datetime.now(UTC)
    month = now.year * 12 + now.month  # of the next month, counted from 0
    return int((datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) - now).total_seconds()) + 1
