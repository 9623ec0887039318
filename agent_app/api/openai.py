"""OpenAI's chat completions and models, through the same graph.

The rule: without `tools` in the request the agent's own tools are at work, unseen; with them the
client's are used and ours stay out. No state is kept, unless `metadata.thread_id` names a thread:
then the last user message is said there, as by `POST /chat`.
"""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from agent_app.access.keys import Key
from agent_app.agent.cache import Wish
from agent_app.agent.events import (
    WAITS_FOR_APPROVAL,
    Approval,
    ClientToolCalls,
    Done,
    Event,
    Failed,
    Queued,
    Token,
    Usage,
)
from agent_app.agent.run import Run
from agent_app.agent.runner import Ask
from agent_app.api.chat import describe_usage
from agent_app.api.schemas import EVENTS_SCHEMA, CompletionRequest
from agent_app.api.services import CacheWish, ChatKey, FeatureTag, ServicesNow, current_correlation
from agent_app.api.stream import KEEP_ALIVE, QUIET_SECONDS, EventStream, until_client_leaves
from agent_app.errors import AgentAppError, ApprovalRequired, InvalidRequest

FIRST_EVENT_SECONDS = 5.0
"""How long a stream's status line waits, so that an early failure gets a status of its own."""

router = APIRouter(prefix="/v1", tags=["openai"])

_MODELS = {
    "object": "list",
    "data": [{"id": "demo", "object": "model", "created": 0, "owned_by": "rackhand"}],
}
_COMPLETION = {
    "id": "chatcmpl-8c1f2b9e5c1d4a519a0e3d7f4b1c2a60",
    "object": "chat.completion",
    "created": 1795263000,
    "model": "demo",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "On port 8000."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 310, "completion_tokens": 7, "total_tokens": 317},
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "OpenAI's `chat.completion`, or its chunks as events.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _COMPLETION},
            "text/event-stream": {
                "schema": EVENTS_SCHEMA,
                "example": 'data: {"object":"chat.completion.chunk",…}\n\ndata: [DONE]\n\n',
            },
        },
    }
}


@router.get("/models", responses={200: {"content": {"application/json": {"example": _MODELS}}}})
async def models(services: ServicesNow, _key: ChatKey) -> dict[str, Any]:
    """List the models."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "rackhand"}
            for name in services.config.models
        ],
    }


@router.post("/chat/completions", responses=_ANSWER, response_class=Response)
async def complete(
    body: CompletionRequest,
    request: Request,
    services: ServicesNow,
    key: ChatKey,
    wish: CacheWish,
    feature: FeatureTag = "",
) -> Response:
    """Answer as OpenAI's API does."""
    run = await services.runner.start(_ask(body, key, feature, wish))
    head = {
        "id": f"chatcmpl-{run.run_id.hex}",
        "created": int(time.time()),
        "model": body.model or services.config.default_model,
    }
    headers = dict(run.headers)
    if run.thread_id:
        headers["X-Thread-Id"] = str(run.thread_id)
    if not body.stream:
        result = await until_client_leaves(request, run, _collect(run, head))
        return JSONResponse(result, headers=headers)
    early = await until_client_leaves(request, run, run.first(FIRST_EVENT_SECONDS), keep=True)
    if isinstance(early, Failed):
        raise early.error
    usage_wanted = bool(body.stream_options and body.stream_options.include_usage)
    return EventStream(run, _encode(run, head, usage_wanted=usage_wanted), headers)


def _ask(body: CompletionRequest, key: Key, feature: str, wish: Wish) -> Ask:
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    thread = (body.metadata or {}).get("thread_id")
    common: dict[str, Any] = {
        "key": key,
        "feature": feature,
        "wish": wish,
        "correlation": current_correlation(),
        "model": body.model,
        "options": body.options(),
        "may_retract": not body.stream,
    }
    if thread is None:
        return Ask(**common, messages=messages)
    if body.tools:
        raise InvalidRequest("tools cannot be combined with metadata.thread_id")
    return Ask(**common, thread_id=_thread_id(thread), message=_last_words(messages))


def _thread_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidRequest("metadata.thread_id must be a UUID") from error


def _last_words(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last message, which must be the user's."""
    content = messages[-1].get("content")
    if isinstance(content, list):
        content = "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    if messages[-1]["role"] != "user" or not isinstance(content, str) or not content:
        raise InvalidRequest("with metadata.thread_id the last message must be a user's text")
    return content


async def _encode(run: Run, head: dict[str, Any], *, usage_wanted: bool) -> AsyncIterator[bytes]:
    head = {**head, "object": "chat.completion.chunk"}
    usage, waiting = Usage(), list[Approval]()

    def describe(event: Event) -> bytes:  # noqa: PLR0911 - one per kind of event
        nonlocal usage
        match event:
            case Queued():
                return KEEP_ALIVE
            case Token(text, _):
                return _chunk(head, {"content": text})
            case ClientToolCalls(deltas):
                return _chunk(head, {"tool_calls": deltas})
            case Usage():
                usage = event
            case Failed(error):
                return _data(describe_openai_error(error))
            case Approval():
                waiting.append(event)
            case Done(finish_reason=reason) if reason == WAITS_FOR_APPROVAL:
                return _data(describe_openai_error(_needs_approval(run, waiting)))
            case Done():
                last = _chunk(head, {}, event.finish_reason)
                if usage_wanted:
                    last += _data({**head, "choices": [], "usage": describe_usage(usage)})
                return last + b"data: [DONE]\n\n"
        return b""

    yield _chunk(head, {"role": "assistant", "content": ""})
    async for news in run.follow(quiet_seconds=QUIET_SECONDS):
        data = b"".join([describe(numbered.event) for numbered in news])
        if data or not news:
            yield data or KEEP_ALIVE


def _chunk(head: dict[str, Any], delta: dict[str, Any], reason: str | None = None) -> bytes:
    return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


async def _collect(run: Run, head: dict[str, Any]) -> dict[str, Any]:
    usage, waiting = Usage(), list[Approval]()
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        match event:
            case Usage():
                usage = event
            case Failed(error):
                raise error
            case Approval():
                waiting.append(event)
            case Done(finish_reason=reason) if reason == WAITS_FOR_APPROVAL:
                raise _needs_approval(run, waiting)
            case Done():
                message: dict[str, Any] = {"role": "assistant", "content": event.content or None}
                if event.tool_calls:
                    message["tool_calls"] = event.tool_calls
                choice = {"index": 0, "message": message, "finish_reason": event.finish_reason}
                return {
                    **head,
                    "object": "chat.completion",
                    "choices": [choice],
                    "usage": describe_usage(usage),
                }
    raise AgentAppError("the run ended without a word")


def _needs_approval(run: Run, waiting: list[Approval]) -> ApprovalRequired:
    """Return what a client of this protocol, which has no word for it, is told."""
    calls = ", ".join(f"{approval.id} ({approval.name})" for approval in waiting)
    return ApprovalRequired(
        f"thread {run.thread_id} waits for a person to approve: {calls}. Decide by POST"
        f" /threads/{run.thread_id}/approvals/<call>, then send the same message again"
    )


def describe_openai_error(error: AgentAppError) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": error.message, "type": kind, "code": error.code, "param": None}}
