"""`POST /chat`: one turn of a thread, streamed as server-sent events."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from agent_app.agent.events import (
    Approval,
    ClientToolCalls,
    Done,
    Event,
    Failed,
    Queued,
    Relayed,
    Retract,
    Token,
    ToolEnd,
    ToolStart,
    Usage,
)
from agent_app.agent.retelling import HeardEvent, read_event_id
from agent_app.agent.run import Numbered, Run
from agent_app.agent.runner import Ask
from agent_app.api.schemas import EVENTS_SCHEMA, ChatAnswer, ChatRequest, ResumeRequest
from agent_app.api.services import (
    CacheWish,
    ChatKey,
    FeatureTag,
    Services,
    ServicesNow,
    current_correlation,
)
from agent_app.api.stream import KEEP_ALIVE, QUIET_SECONDS, EventStream, until_client_leaves
from agent_app.errors import AgentAppError, InvalidRequest

router = APIRouter(tags=["chat"])

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=100,
        description="The last `id` that was heard of a stream that broke: what came after it is"
        " told. Only to resume a stream.",
        examples=["8c1f2b9e-5c1d-4a51-9a0e-3d7f4b1c2a60.1.17"],
    ),
]

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events queued, token, tool, approval, retract, usage, then done or error,"
        " each but a correction with an id; without `stream` one document.",
        "model": ChatAnswer,
        "content": {
            "text/event-stream": {
                "schema": EVENTS_SCHEMA,
                "example": 'id: 8c1f….1.1\nevent: token\ndata: {"text":"Rack",…}\n\n',
            }
        },
    }
}


@router.post("/chat", responses=_ANSWER, response_class=Response)
async def chat(
    body: ChatRequest,
    request: Request,
    services: ServicesNow,
    key: ChatKey,
    wish: CacheWish,
    feature: FeatureTag = "",
    last_event_id: LastEventId = None,
) -> Response:
    """Say something in a thread and stream what the agent does and answers."""
    ask = Ask(
        key=key,
        feature=feature,
        correlation=current_correlation(),
        model=body.model,
        thread_id=body.thread_id,
        message=body.message,
        wish=wish,
        heard=_heard(last_event_id, resumes_stream=body.resume and body.stream),
    )
    return await _answer(request, services, ask, stream=body.stream)


@router.post("/chat/{thread_id}/resume", responses=_ANSWER, response_class=Response)
async def resume(
    thread_id: UUID,
    request: Request,
    services: ServicesNow,
    key: ChatKey,
    body: ResumeRequest | None = None,
    feature: FeatureTag = "",
    last_event_id: LastEventId = None,
) -> Response:
    """Go on with a thread's last run: its stream that broke, or from its last checkpoint.

    With `Last-Event-ID` the client gets every event after that one, from the run itself where it
    still goes on, otherwise from its checkpoint, with a `retract` for text that is told anew.
    """
    stream = body.stream if body else True
    ask = Ask(
        key=key,
        correlation=current_correlation(),
        feature=feature,
        thread_id=thread_id,
        heard=_heard(last_event_id, resumes_stream=stream),
    )
    return await _answer(request, services, ask, stream=stream)


def _heard(last_event_id: str | None, *, resumes_stream: bool) -> HeardEvent | None:
    if not last_event_id:
        return None
    if not resumes_stream:
        raise InvalidRequest("Last-Event-ID is only for resuming a stream, without a message")
    try:
        return read_event_id(last_event_id)
    except ValueError as error:
        raise InvalidRequest("Last-Event-ID: give an id of one of our events back") from error


async def _answer(request: Request, services: Services, ask: Ask, *, stream: bool) -> Response:
    run = await services.runner.start(ask)
    headers = {"X-Thread-Id": str(run.thread_id), "X-Run-Id": str(run.run_id), **run.headers}
    if stream:
        line = object()
        run.connect(line)
        heard = ask.heard.place if ask.heard else None
        events = run.follow(quiet_seconds=QUIET_SECONDS, line=line, heard=heard)
        return EventStream(
            run,
            _encode(run, events, ask.correlation),
            headers,
            line=line,
            grace_seconds=services.config.limits.reconnect_seconds,
        )
    result = await until_client_leaves(request, run, _collect(run))
    return JSONResponse(result, headers=headers)


async def _encode(
    run: Run, events: AsyncIterator[list[Numbered]], correlation: str
) -> AsyncIterator[bytes]:
    async for news in events:
        if news:
            yield b"".join([_event(numbered, run, correlation) for numbered in news])
        else:
            yield KEEP_ALIVE


def _event(numbered: Numbered, run: Run, correlation: str) -> bytes:
    name, data = _describe(numbered.event, run, correlation)
    place = numbered.place
    id_line = f"id: {run.run_id}.{place.attempt}.{place.number}\n" if place else ""
    return f"{id_line}event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


def _describe(  # noqa: PLR0911 - one per kind of event
    event: Event, run: Run, correlation: str
) -> tuple[str, dict[str, Any]]:
    match event:
        case Token(text, message_id):
            return "token", {"text": text, "message_id": message_id}
        case Queued(place, seconds):
            return "queued", {"position": place, "at_most_seconds": round(seconds, 1)}
        case Retract(message_id):
            return "retract", {"message_id": message_id}
        case ToolStart(id, name, arguments):
            return "tool", {"phase": "start", "id": id, "name": name, "arguments": arguments}
        case ToolEnd():
            return "tool", {"phase": "end", **_describe_result(event)}
        case Approval():
            return "approval", _describe_approval(event)
        case ClientToolCalls(deltas):
            return "tool", {"phase": "client", "calls": deltas}
        case Usage():
            return "usage", describe_usage(event)
        case Relayed():
            raise AssertionError("only /v1/responses relays")
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


def _describe_approval(approval: Approval) -> dict[str, Any]:
    return {
        "id": approval.id,
        "name": approval.name,
        "arguments": approval.arguments,
        "expires_at": approval.expires_at.isoformat(),
    }


def describe_usage(usage: Usage) -> dict[str, int | bool]:
    """Return usage in OpenAI's words, and whether the answer came from the cache."""
    return {
        **({"cached": True} if usage.cached else {}),
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
        **({"retry_after": int(after)} if (after := error.headers.get("Retry-After")) else {}),
    }


async def _collect(run: Run) -> dict[str, Any]:
    usage, calls, approvals = Usage(), [], []
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        match event:
            case Usage():
                usage = event
            case ToolEnd():
                calls.append(_describe_result(event))
            case Approval():
                approvals.append(_describe_approval(event))
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
                    "approvals": approvals,
                    "usage": describe_usage(usage),
                }
    raise AgentAppError("the run ended without a word")
