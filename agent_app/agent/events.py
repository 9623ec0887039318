"""What a run tells whoever listens, in the order it happens."""

from dataclasses import dataclass
from typing import Any

from agent_app.errors import AgentAppError
from agent_app.tools.toolbox import Source


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer's text."""

    text: str
    message_id: str


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
class ClientToolCalls:
    """Tool calls for the client to execute, as the engine streamed them."""

    deltas: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the whole run, in the engine's own count."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Add up two steps."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
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


Event = Token | Retract | ToolStart | ToolEnd | ClientToolCalls | Usage | Done | Failed
