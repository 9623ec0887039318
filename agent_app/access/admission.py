"""What a run passes before it begins and after it ends: budget, limits, and the bill."""

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from agent_app.access.keys import Key
from agent_app.access.limits import Gate, Grant
from agent_app.errors import BudgetSpent, DatabaseUnavailable
from agent_app.observability import metrics
from agent_app.state.usage import Spent, UsageTable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """A run that was let in."""

    key: Key
    feature: str
    grant: Grant
    headers: dict[str, str]


class Doorkeeper:
    """Lets runs in within budget and limits, and counts what they used."""

    def __init__(self, gate: Gate, usage: UsageTable) -> None:
        self._gate = gate
        self._usage = usage

    async def let_in(self, key: Key, feature: str, *, tokens: int) -> Visit:
        """Admit a run that may use so many tokens in its first step.

        Raises:
            BudgetSpent: The key's month is over its hard budget.
            RateLimited: A limit of the key is reached.
            DatabaseUnavailable: The key has a budget and nobody knows what is left of it.
        """
        grant = await self._gate.enter(key.id, key.limits, tokens=tokens)
        try:
            level = await self._budget_level(key, grant)
        except BaseException:
            await self._gate.leave(grant, used=0)
            raise
        headers = {"X-Budget": level} if level == "medium" else {}
        return Visit(key, feature, grant, {**grant.headers, **headers})

    async def turn_back(self, visit: Visit) -> None:
        """Take back the leave of a run that could not begin; it used nothing."""
        await self._gate.leave(visit.grant, used=0)

    async def see_off(self, visit: Visit, model: str, spent: Spent, *, known: bool) -> None:
        """Settle with the limits and count.

        Args:
            visit: The run.
            model: Its model.
            spent: What it used.
            known: Whether that is all of it.
        """
        usage, name = spent.usage, visit.key.name
        metrics.KEY_TOKENS.labels(model, name, "prompt").inc(usage.prompt_tokens)
        metrics.KEY_TOKENS.labels(model, name, "completion").inc(usage.completion_tokens)
        metrics.KEY_ENGINE_SECONDS.labels(model, name).inc(spent.engine_seconds)
        await self._gate.leave(visit.grant, used=usage.total if known else None)

    async def count_stateless(self, visit: Visit, model: str, spent: Spent) -> None:
        """Write down the usage of a run that keeps no state; its answer does not wait on that."""
        try:
            await self._usage.add(visit.key.id, model, spent)
        except DatabaseUnavailable as error:
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
            metrics.BUDGET_PASSED.labels(key.name, level).inc()
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
