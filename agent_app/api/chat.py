"""`POST /chat`: one turn of a thread, streamed as server-sent events."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from agent_app.agent.events import (
    ClientToolCalls,
    Done,
    Event,
    Failed,
    Retract,
    Token,
    ToolEnd,
    ToolStart,
    Usage,
)
from agent_app.agent.run import Run
from agent_app.agent.runner import Ask
from agent_app.api.schemas import ChatRequest, ResumeRequest
from agent_app.api.services import ChatKey, FeatureTag, Services, ServicesNow, current_correlation
from agent_app.api.stream import KEEP_ALIVE, QUIET_SECONDS, EventStream, until_client_leaves
from agent_app.errors import AgentAppError

router = APIRouter(tags=["chat"])

_STREAM_DOC: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events token, tool, retract, usage, then done or error, each with an id.",
        "content": {
            "text/event-stream": {
                "example": 'id: 8c1f….1.1\nevent: token\ndata: {"text":"Rack","message_id":"…"}\n\n'
            }
        },
    }
}


@router.post("/chat", responses=_STREAM_DOC, response_class=Response)
async def chat(
    body: ChatRequest,
    request: Request,
    services: ServicesNow,
    key: ChatKey,
    feature: FeatureTag = "",
) -> Response:
    """Say something in a thread and stream what the agent does and answers."""
    ask = Ask(
        key=key,
        feature=feature,
        correlation=current_correlation(),
        model=body.model,
        thread_id=body.thread_id,
        message=body.message,
    )
    return await _answer(request, services, ask, stream=body.stream)


@router.post("/chat/{thread_id}/resume", responses=_STREAM_DOC, response_class=Response)
async def resume(
    thread_id: UUID,
    request: Request,
    services: ServicesNow,
    key: ChatKey,
    body: ResumeRequest | None = None,
    feature: FeatureTag = "",
) -> Response:
    """Go on with a thread whose last run was interrupted, from its last checkpoint."""
    ask = Ask(key=key, correlation=current_correlation(), feature=feature, thread_id=thread_id)
    return await _answer(request, services, ask, stream=body.stream if body else True)


async def _answer(request: Request, services: Services, ask: Ask, *, stream: bool) -> Response:
    run = await services.runner.start(ask)
    headers = {"X-Thread-Id": str(run.thread_id), "X-Run-Id": str(run.run_id), **run.headers}
    if stream:
        return EventStream(run, _encode(run, ask.correlation), headers)
    result = await until_client_leaves(request, run, _collect(run))
    return JSONResponse(result, headers=headers)


async def _encode(run: Run, correlation: str) -> AsyncIterator[bytes]:
    number = 0
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        if event is None:
            yield KEEP_ALIVE
            continue
        number += 1
        name, data = _describe(event, run, correlation)
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        yield f"id: {run.run_id}.{run.attempt}.{number}\nevent: {name}\ndata: {text}\n\n".encode()


def _describe(  # noqa: PLR0911 - one per kind of event
    event: Event, run: Run, correlation: str
) -> tuple[str, dict[str, Any]]:
    match event:
        case Token(text, message_id):
            return "token", {"text": text, "message_id": message_id}
        case Retract(message_id):
            return "retract", {"message_id": message_id}
        case ToolStart(id, name, arguments):
            return "tool", {"phase": "start", "id": id, "name": name, "arguments": arguments}
        case ToolEnd():
            return "tool", {"phase": "end", **_describe_result(event)}
        case ClientToolCalls(deltas):
            return "tool", {"phase": "client", "calls": deltas}
        case Usage():
            return "usage", describe_usage(event)
        case Done():
            return "done", {
                "thread_id": str(run.thread_id),
                "run_id": str(run.run_id),
                "message_id": event.message_id,
                "content": event.content,
                "finish_reason": event.finish_reason,
                "resumed": run.resumed,
                "replayed": event.replayed,
            }
        case Failed(error):
            return "error", {
                **describe_error(error, correlation),
                "thread_id": str(run.thread_id),
                "run_id": str(run.run_id),
            }


def _describe_result(end: ToolEnd) -> dict[str, Any]:
    return {
        "id": end.id,
        "name": end.name,
        "ok": end.ok,
        "result": end.result,
        "sources": [asdict(source) for source in end.sources],
    }


def describe_usage(usage: Usage) -> dict[str, int]:
    """Return usage in OpenAI's words."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total,
    }


def describe_error(error: AgentAppError, correlation: str) -> dict[str, Any]:
    """Return what a client may know of an error: no place, no cause."""
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "request_id": correlation,
    }


async def _collect(run: Run) -> dict[str, Any]:
    usage, calls = Usage(), []
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        match event:
            case Usage():
                usage = event
            case ToolEnd():
                calls.append(_describe_result(event))
            case Failed(error):
                raise error
            case Done():
                return {
                    "thread_id": str(run.thread_id),
                    "run_id": str(run.run_id),
                    "message": {"id": event.message_id, "content": event.content},
                    "finish_reason": event.finish_reason,
                    "resumed": run.resumed,
                    "tools": calls,
                    "usage": describe_usage(usage),
                }
    raise AgentAppError("the run ended without a word")
