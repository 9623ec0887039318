"""What a run tells whoever listens, in the order it happens."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_app.errors import AgentAppError
from agent_app.tools.toolbox import Source

WAITS_FOR_APPROVAL = "approval"
"""`finish_reason` of a run that goes on once a person has decided about a tool call."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer's text."""

    text: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Queued:
    """The engines are full; the run waits for its turn."""

    position: int
    """From 1, among all who wait; newcomers of keys that used less may come before it."""
    at_most_seconds: float
    """It waits no longer than that from now."""


@dataclass(frozen=True, slots=True)
class Retract:
    """All text of this message so far is withdrawn; it begins anew."""

    message_id: str


@dataclass(frozen=True, slots=True)
class ToolStart:
    """One of our tools is about to run."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """One of our tools has run."""

    id: str
    name: str
    ok: bool
    result: str
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Approval:
    """One of our tools waits for a person to approve the call."""

    id: str
    name: str
    arguments: str
    """As they will be executed."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ClientToolCalls:
    """Tool calls for the client to execute, as the engine streamed them."""

    deltas: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the whole run, in the engine's own count."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    """The answer came from the cache; the tokens are what finding it cost."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Add up two steps."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached or other.cached,
        )

    def __sub__(self, part: "Usage") -> "Usage":
        """Take a part of it away."""
        return Usage(
            self.prompt_tokens - part.prompt_tokens,
            self.completion_tokens - part.completion_tokens,
            self.cached,
        )


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Done:
    """The run is complete and stored."""

    message_id: str
    content: str
    finish_reason: str
    replayed: bool = False
    tool_calls: tuple[dict[str, Any], ...] = ()
    """Calls for the client to execute, where it brought its own tools."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended without an answer."""

    error: AgentAppError


@dataclass(frozen=True, slots=True)
class Relayed:
    """An event of the engine's own stream, for a client who speaks the engine's protocol."""

    data: bytes


Event = (
    Queued
    | Token
    | Retract
    | ToolStart
    | ToolEnd
    | Approval
    | ClientToolCalls
    | Usage
    | Relayed
    | Done
    | Failed
)
