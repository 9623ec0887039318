"""OpenAI's chat completions and models, through the same graph.

The rule: without `tools` in the request the agent's own tools are at work, unseen; with them the
client's are used and ours stay out. No state is kept, unless `metadata.thread_id` names a thread:
then the last user message is said there, as by `POST /chat`.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from agent_app.access.keys import Key
from agent_app.agent.events import ClientToolCalls, Done, Failed, Token, Usage
from agent_app.agent.run import Run
from agent_app.agent.runner import Ask
from agent_app.api.chat import describe_usage
from agent_app.api.schemas import CompletionRequest
from agent_app.api.services import ChatKey, FeatureTag, ServicesNow, current_correlation
from agent_app.api.stream import KEEP_ALIVE, QUIET_SECONDS, EventStream, until_client_leaves
from agent_app.errors import AgentAppError, InvalidRequest

FIRST_EVENT_SECONDS = 5.0
"""How long a stream's status line waits, so that an early failure gets a status of its own."""

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models")
async def models(services: ServicesNow, _key: ChatKey) -> dict[str, Any]:
    """List the models."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "rackhand"}
            for name in services.config.models
        ],
    }


@router.post("/chat/completions", response_class=Response)
async def complete(
    body: CompletionRequest,
    request: Request,
    services: ServicesNow,
    key: ChatKey,
    feature: FeatureTag = "",
) -> Response:
    """Answer as OpenAI's API does."""
    run = await services.runner.start(_ask(body, key, feature))
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


def _ask(body: CompletionRequest, key: Key, feature: str) -> Ask:
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    thread = (body.metadata or {}).get("thread_id")
    common: dict[str, Any] = {
        "key": key,
        "feature": feature,
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
    usage = Usage()
    yield _chunk(head, {"role": "assistant", "content": ""})
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        match event:
            case None:
                yield KEEP_ALIVE
            case Token(text, _):
                yield _chunk(head, {"content": text})
            case ClientToolCalls(deltas):
                yield _chunk(head, {"tool_calls": deltas})
            case Usage():
                usage = event
            case Failed(error):
                yield _data(describe_openai_error(error))
                return
            case Done():
                yield _chunk(head, {}, event.finish_reason)
                if usage_wanted:
                    yield _data({**head, "choices": [], "usage": describe_usage(usage)})
    yield b"data: [DONE]\n\n"


def _chunk(head: dict[str, Any], delta: dict[str, Any], reason: str | None = None) -> bytes:
    return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, separators=(',', ':'), ensure_ascii=False)}\n\n".encode()


async def _collect(run: Run, head: dict[str, Any]) -> dict[str, Any]:
    usage = Usage()
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        match event:
            case Usage():
                usage = event
            case Failed(error):
                raise error
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


def describe_openai_error(error: AgentAppError) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": error.message, "type": kind, "code": error.code, "param": None}}
