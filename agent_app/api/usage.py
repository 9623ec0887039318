"""`GET /usage`: what a key used, by day, model and feature."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from agent_app.api.services import AdminKey, AnyKey, Services, ServicesNow
from agent_app.state.usage import first_of_month

router = APIRouter(prefix="/usage", tags=["usage"])

Month = Annotated[
    str | None, Query(pattern=r"^2\d{3}-(0[1-9]|1[0-2])$", description="Default: this one, UTC.")
]


@router.get("")
async def own_usage(services: ServicesNow, key: AnyKey, month: Month = None) -> dict[str, Any]:
    """Return the calling key's figures of a month, and its budgets."""
    limits = key.limits.over(services.config.limits)
    budget = {
        "soft": limits.budget_soft or None,
        "medium": limits.budget_medium or None,
        "hard": limits.budget_hard or None,
    }
    return {**await _figures(services, first_of_month(month), key.id), "budget": budget}


@router.get("/all")
async def all_usage(services: ServicesNow, _key: AdminKey, month: Month = None) -> dict[str, Any]:
    """Return every key's figures of a month."""
    return await _figures(services, first_of_month(month), None)


async def _figures(services: Services, first: date, key_id: UUID | None) -> dict[str, Any]:
    rows = await services.usage.rows(first, key_id=key_id)
    counts = ("requests", "prompt_tokens", "completion_tokens")
    totals = {name: sum(row[name] for row in rows) for name in counts}
    totals["total_tokens"] = totals["prompt_tokens"] + totals["completion_tokens"]
    return {"month": f"{first:%Y-%m}", "totals": totals, "usage": rows}
