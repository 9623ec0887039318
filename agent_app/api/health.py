"""`/health`: this process lives. `/ready`: it can serve, and if not, what stands in the way."""

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from agent_app.api.services import ServicesNow

router = APIRouter(tags=["health"])


_READY = {"ready": True, "not_ready": {}, "degraded": {}, "checks": {"database": "ok"}}
_ALIVE = {"status": "ok"}


@router.get("/health", responses={200: {"content": {"application/json": {"example": _ALIVE}}}})
async def health() -> dict[str, str]:
    """Say that the process lives; nothing else is asked."""
    return {"status": "ok"}


@router.get(
    "/ready",
    response_class=JSONResponse,
    responses={
        200: {"content": {"application/json": {"example": _READY}}},
        503: {
            "description": "Something needed is missing.",
            "content": {
                "application/json": {
                    "example": {"ready": False, "not_ready": {"database": "…"}, "checks": {}}
                }
            },
        },
    },
)
async def ready(services: ServicesNow) -> JSONResponse:
    """Ask the database, both Redis databases and the engines, and name what is not ready."""
    findings = await asyncio.shield(asyncio.ensure_future(services.readiness.check()))
    missing = {f.name: f.why for f in findings if f.why and f.required}
    body: dict[str, Any] = {
        "ready": not missing,
        "not_ready": missing,
        "degraded": {f.name: f.why for f in findings if f.why and not f.required},
        "checks": {f.name: f.why or "ok" for f in findings},
    }
    return JSONResponse(
        body, status_code=503 if missing else 200, headers={"Cache-Control": "no-store"}
    )
