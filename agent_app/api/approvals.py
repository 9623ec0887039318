"""`/approvals`: tool calls that a person must allow before they run, and what was decided."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from agent_app.access.keys import Key
from agent_app.api.errors import documented
from agent_app.api.schemas import Body
from agent_app.api.services import (
    AnyKey,
    Services,
    ServicesNow,
    current_correlation,
    require_scope,
)
from agent_app.errors import Forbidden, NotFound
from agent_app.state.approvals import ApprovalStatus, Request

router = APIRouter(tags=["approvals"])

NOTE_CHARACTERS = 500
APPROVE = "approve"

_EXAMPLE: dict[str, Any] = {
    "thread_id": "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e",
    "call_id": "3f9a01c2b",
    "tool": "shop__refund",
    "arguments": '{"order": 7, "amount": 20}',
    "status": "pending",
    "requested_at": "2026-11-21T10:00:00Z",
    "expires_at": "2026-11-22T10:00:00Z",
    "decided_at": None,
    "note": "",
}


_NOT_FOUND = documented(
    404, "not_found", "no such request for approval", "No such thread or call for this key."
)
_FORBIDDEN = documented(
    403,
    "insufficient_scope",
    "this key lacks the scope approve",
    "Only keys with the scope `approve` may.",
)
_DECIDED = documented(
    409, "already_decided", "the call was denied already", "It is decided, expired or void."
)


class ShownApproval(BaseModel):
    """A call that waits for a person, or did."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    thread_id: UUID
    call_id: str
    tool: str
    arguments: str = Field(description="JSON, exactly what is executed.")
    status: ApprovalStatus = Field(description="`void`: its run was abandoned or ended.")
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    note: str


class ApprovalList(BaseModel):
    """Calls, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"approvals": [_EXAMPLE]}]})

    approvals: list[ShownApproval]


class DecisionRequest(Body):
    """Body of `POST /threads/{id}/approvals/{call_id}`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"decision": "deny", "note": "Too much."}]}
    )

    decision: Literal["approve", "deny"]
    note: str = Field(
        default="",
        max_length=NOTE_CHARACTERS,
        description="Kept; of a denial the model is told it.",
    )


CallId = Annotated[str, Path(pattern=r"^[0-9a-f]{9}$")]


@router.get("/approvals", responses=_FORBIDDEN)
async def list_pending(services: ServicesNow, key: AnyKey) -> ApprovalList:
    """List what waits in all threads; wants the scope `approve`."""
    await require_scope(APPROVE)(key)
    return _listed(await services.approvals.pending())


@router.get("/threads/{thread_id}/approvals", responses={**_NOT_FOUND, **_FORBIDDEN})
async def list_of_thread(thread_id: UUID, services: ServicesNow, key: AnyKey) -> ApprovalList:
    """List a thread's calls that needed approval; for its own key and for the scope `approve`."""
    return _listed(await services.approvals.of_thread(thread_id, key_id=_owner(key)))


@router.post(
    "/threads/{thread_id}/approvals/{call_id}",
    responses={**_NOT_FOUND, **_FORBIDDEN, **_DECIDED},
)
async def decide(
    thread_id: UUID, call_id: CallId, body: DecisionRequest, services: ServicesNow, key: AnyKey
) -> ShownApproval:
    """Approve or deny a call, once; then `resume` goes on with the thread."""
    requests = await services.approvals.of_thread(thread_id, key_id=_owner(key))
    asked = next((r for r in reversed(requests) if r.call_id == call_id), None)
    if asked is None:
        raise NotFound("no such request for approval")
    _check_may_decide(services, key)
    decided, new = await services.approvals.decide(
        asked, body.decision, by=key.id, note=body.note.strip()
    )
    if new:
        await services.audit.record(
            f"approval.{body.decision}",
            key_id=key.id,
            thread_id=thread_id,
            run_id=asked.run_id,
            correlation=current_correlation(),
            details={"tool": asked.tool, "call": call_id, "digest": asked.digest},
        )
    return _shown(decided)


def _owner(key: Key) -> UUID | None:
    """Return whose threads a key sees: its own, or with the scope `approve` all."""
    if APPROVE in key.scopes:
        return None
    if "chat" not in key.scopes:
        raise Forbidden("this key lacks the scope chat or approve")
    return key.id


def _check_may_decide(services: Services, key: Key) -> None:
    if services.config.approvals.by == "scope" and APPROVE not in key.scopes:
        raise Forbidden(f"only a key with the scope {APPROVE} may decide here")


def _listed(requests: list[Request]) -> ApprovalList:
    return ApprovalList(approvals=[_shown(request) for request in requests])


def _shown(request: Request) -> ShownApproval:
    return ShownApproval(**{n: getattr(request, n) for n in ShownApproval.model_fields})
