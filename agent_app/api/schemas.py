"""Bodies of requests, checked at the edge."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

MESSAGE_CHARACTERS = 200_000

EVENTS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One server-sent event; `data` is a JSON document.",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string"},
    },
    "required": ["data"],
}
"""Of answers in `text/event-stream`."""

Text = Annotated[str, Field(min_length=1, max_length=MESSAGE_CHARACTERS)]


class Body(BaseModel):
    """A request's body; refuses text that can be neither stored nor sent on."""

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        waiting = [body]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                waiting += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                waiting += value
            elif isinstance(value, str) and not _is_storable(value):
                raise ValueError("no text may hold a NUL or half a surrogate pair")
        return body


def _is_storable(text: str) -> bool:
    try:
        return "\0" not in text and (text.isascii() or bool(text.encode()))
    except UnicodeEncodeError:
        return False


class ChatRequest(Body):
    """Body of `POST /chat`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"message": "What is Rackhand?"},
                {"thread_id": "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e", "message": "And its ports?"},
                {"thread_id": "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e", "resume": True},
            ]
        },
    )

    thread_id: UUID | None = Field(
        default=None, description="A thread of this key; a new id of your own begins one."
    )
    message: Text | None = None
    model: str | None = Field(default=None, max_length=200)
    stream: bool = True
    resume: bool = Field(
        default=False, description="Go on with the thread's interrupted run; no message then."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> "ChatRequest":
        if self.resume and (self.message is not None or self.thread_id is None):
            raise ValueError("with resume give thread_id and no message")
        if not self.resume and self.message is None:
            raise ValueError("give a message, or resume: true")
        return self


class ResumeRequest(BaseModel):
    """Body of `POST /chat/{thread_id}/resume`; may be left out."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"stream": True}]})

    stream: bool = True


class ChatUsage(BaseModel):
    """Tokens of the run, in the engine's count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(BaseModel):
    """The agent's last word."""

    id: str
    content: str


class ChatAnswer(BaseModel):
    """Answer of `/chat` without `stream`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "thread_id": "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e",
                    "run_id": "8c1f2b9e-5c1d-4a51-9a0e-3d7f4b1c2a60",
                    "message": {"id": "8c1f….0", "content": "On port 8000."},
                    "finish_reason": "stop",
                    "resumed": False,
                    "tools": [],
                    "usage": {
                        "prompt_tokens": 310,
                        "completion_tokens": 7,
                        "total_tokens": 317,
                    },
                }
            ]
        }
    )

    thread_id: UUID
    run_id: UUID
    message: ChatMessage
    finish_reason: str
    resumed: bool
    tools: list[dict[str, Any]]
    usage: ChatUsage


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class OpenAIMessage(BaseModel):
    """One message; fields beyond these travel on to the engine."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class CompletionRequest(Body):
    """Body of `POST /v1/chat/completions`; what is not listed here is ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "demo",
                    "messages": [{"role": "user", "content": "What is Rackhand?"}],
                    "stream": True,
                }
            ]
        }
    )

    model: str | None = Field(default=None, max_length=200)
    messages: list[OpenAIMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = Field(
        default=None,
        description="`thread_id` makes the last user message the next one of that thread.",
    )
    n: Literal[1] = 1
    logprobs: Literal[False] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    def options(self) -> dict[str, Any]:
        """Return the parameters that go to the engine as they are."""
        options = self.model_dump(
            include={
                "temperature",
                "top_p",
                "frequency_penalty",
                "presence_penalty",
                "seed",
                "stop",
                "response_format",
                *({"tools", "tool_choice", "parallel_tool_calls"} if self.tools else ()),
            },
            exclude_none=True,
        )
        if most := self.max_completion_tokens or self.max_tokens:
            options["max_tokens"] = most
        return options
