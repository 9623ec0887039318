"""`GET /usage`: what a key used, by day, model and feature."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from agent_app.api.services import AdminKey, AnyKey, Services, ServicesNow
from agent_app.state.usage import first_of_month

router = APIRouter(prefix="/usage", tags=["usage"])

_ROW = {
    "key": "shop",
    "day": "2026-11-21",
    "model": "demo",
    "feature": "search",
    "requests": 12,
    "prompt_tokens": 5210,
    "completion_tokens": 870,
    "engine_seconds": 31.5,
}
_TOTALS = {
    "requests": 12,
    "prompt_tokens": 5210,
    "completion_tokens": 870,
    "total_tokens": 6080,
}
_ALL = {"month": "2026-11", "totals": _TOTALS, "usage": [_ROW]}
_OWN = {**_ALL, "budget": {"soft": None, "medium": None, "hard": 1_000_000}}


def _answer(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}}}}


Month = Annotated[
    str | None, Query(pattern=r"^2\d{3}-(0[1-9]|1[0-2])$", description="Default: this one, UTC.")
]


@router.get("", responses=_answer(_OWN))
async def own_usage(services: ServicesNow, key: AnyKey, month: Month = None) -> dict[str, Any]:
    """Return the calling key's figures of a month, and its budgets."""
    limits = key.limits.over(services.config.limits)
    budget = {
        "soft": limits.budget_soft or None,
        "medium": limits.budget_medium or None,
        "hard": limits.budget_hard or None,
    }
    return {**await _figures(services, first_of_month(month), key.id), "budget": budget}


@router.get("/all", responses=_answer(_ALL))
async def all_usage(services: ServicesNow, _key: AdminKey, month: Month = None) -> dict[str, Any]:
    """Return every key's figures of a month."""
    return await _figures(services, first_of_month(month), None)


async def _figures(services: Services, first: date, key_id: UUID | None) -> dict[str, Any]:
    rows = await services.usage.rows(first, key_id=key_id)
    counts = ("requests", "prompt_tokens", "completion_tokens")
    totals = {name: sum(row[name] for row in rows) for name in counts}
    totals["total_tokens"] = totals["prompt_tokens"] + totals["completion_tokens"]
    return {"month": f"{first:%Y-%m}", "totals": totals, "usage": rows}
