"""`/threads`: what a key has talked about; another key's threads do not exist for it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from agent_app.agent.conversation import INTERRUPTED_CALL, Message
from agent_app.api.errors import documented
from agent_app.api.services import ChatKey, ServicesNow, current_correlation
from agent_app.state.threads import Thread

router = APIRouter(tags=["threads"])

_EXAMPLE: dict[str, Any] = {
    "id": "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e",
    "title": "Which port has the engine proxy?",
    "status": "done",
    "created_at": "2026-11-21T10:00:00Z",
    "updated_at": "2026-11-21T10:00:03Z",
    "tokens": 530,
}
_BUSY = documented(
    409,
    "thread_busy",
    "a run of the thread is under way; stop it first",
    "A run of the thread is under way.",
    retryable=True,
)


class ThreadSummary(BaseModel):
    """A thread in a list."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    title: str = Field(description="The first message, shortened.")
    status: str = Field(
        description="Of the last run: running, interrupted (can be resumed),"
        " waiting (for a person to approve a tool call), done, failed."
    )
    created_at: datetime
    updated_at: datetime
    tokens: int = Field(description="Prompt and answer tokens of all turns.")


class ThreadPage(BaseModel):
    """Threads, newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"threads": [_EXAMPLE], "next_cursor": None}]}
    )

    threads: list[ThreadSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page.")


class ShownTool(BaseModel):
    """A tool call of the agent and its result."""

    id: str
    name: str
    arguments: str
    ok: bool | None = Field(description="null while there is no result.")
    result: str | None
    sources: list[Any] = Field(default=[], description="What the result rests on, where known.")


class ShownMessage(BaseModel):
    """A message as a person reads it."""

    id: str
    role: Literal["user", "assistant"]
    content: str
    tools: list[ShownTool] = []


class ThreadWhole(ThreadSummary):
    """A thread with its messages."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_EXAMPLE,
                    "messages": [
                        {"id": "8c1f…", "role": "user", "content": "Which port?", "tools": []},
                        {"id": "8c1f….1", "role": "assistant", "content": "8000.", "tools": []},
                    ],
                }
            ]
        }
    )

    messages: list[ShownMessage]


class Deleted(BaseModel):
    """What a deletion did."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": _EXAMPLE["id"], "deleted": True}]}
    )

    id: UUID
    deleted: Literal[True] = True


class StopAnswer(BaseModel):
    """What a stop found."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stopping": True}]})

    stopping: bool = Field(description="Whether there was a run to stop.")


@router.get("/threads")
async def list_threads(
    services: ServicesNow,
    key: ChatKey,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 30,
) -> ThreadPage:
    """List this key's threads, newest first."""
    threads, following = await services.threads.page(key.id, cursor=cursor, limit=limit)
    return ThreadPage(
        threads=[ThreadSummary(**_summary(thread)) for thread in threads], next_cursor=following
    )


@router.get("/threads/{thread_id}")
async def read_thread(thread_id: UUID, services: ServicesNow, key: ChatKey) -> ThreadWhole:
    """Return a thread with what was said and what tools did."""
    thread, messages = await services.threads.read(key.id, thread_id)
    return ThreadWhole(**_summary(thread), messages=_shown(messages))


@router.delete("/threads/{thread_id}", responses=_BUSY)
async def delete_thread(thread_id: UUID, services: ServicesNow, key: ChatKey) -> Deleted:
    """Delete a thread for good, its checkpoints and tool results too; 409 while a run is on."""
    await services.threads.delete(key.id, thread_id, correlation=current_correlation())
    return Deleted(id=thread_id)


@router.post("/threads/{thread_id}/stop")
async def stop_thread(thread_id: UUID, services: ServicesNow, key: ChatKey) -> StopAnswer:
    """Stop the thread's run, whichever process has it: at once, or within a third of its lease."""
    return StopAnswer(stopping=await services.runner.stop(thread_id, key.id))


def _summary(thread: Thread) -> dict[str, Any]:
    return {name: getattr(thread, name) for name in ThreadSummary.model_fields}


def _shown(messages: list[Message]) -> list[ShownMessage]:
    """Fold results into the calls they answer; leave out what is not for a person."""
    results = {m["tool_call_id"]: m for m in messages if m["role"] == "tool"}
    return [
        ShownMessage(
            id=message["id"],
            role=message["role"],
            content=_text(message["content"]),
            tools=[
                _tool(call, results.get(call["id"])) for call in message.get("tool_calls") or ()
            ],
        )
        for message in messages
        if message["role"] in ("user", "assistant")
    ]


def _tool(call: dict[str, Any], result: Message | None) -> ShownTool:
    text = _text(result["content"]) if result else None
    return ShownTool(
        id=call["id"],
        name=call["function"]["name"],
        arguments=call["function"]["arguments"],
        ok=None if text is None or text == INTERRUPTED_CALL else not text.startswith("error:"),
        result=text,
        sources=(result or {}).get("sources") or [],
    )


def _text(content: object) -> str:
    """Return text of OpenAI's content, which may come in parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
