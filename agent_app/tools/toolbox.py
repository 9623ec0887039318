"""The agent's own tools, and how each call is run exactly once."""

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from uuid import UUID

import structlog

from agent_app.errors import AgentAppError
from agent_app.observability import metrics
from agent_app.state.effects import Effect, Effects

log = structlog.get_logger(__name__)


class InvalidArguments(Exception):
    """The model called a tool wrongly; the text tells it how."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """Which call it is: a tool with effects keys them by `run_id` and `call_id`."""

    run_id: UUID
    call_id: str
    thread_id: UUID | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a result comes from, for a citation."""

    title: str
    path: str


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool gives back."""

    text: str
    sources: tuple[Source, ...] = ()


class Tool(Protocol):
    """Something the model can call."""

    name: str

    @property
    def schema(self) -> dict[str, Any]:
        """What the engine is told of it."""

    async def run(self, arguments: dict[str, Any], context: CallContext) -> Output:
        """Do it and return what the model shall read."""


class ToolUnavailable(Exception):
    """What the tool needs does not answer; the text tells the model."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the model made it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Result:
    """What the model reads about its call."""

    ok: bool
    text: str
    sources: tuple[Source, ...] = ()


class Toolbox:
    """All tools of the agent.

    Args:
        tools: What the model may call.
        effects: Where the result of each call is kept, so that a replay does not repeat it.
        seconds: Wall clock of one call.
    """

    def __init__(self, tools: list[Tool], effects: Effects, *, seconds: float) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._effects = effects
        self._seconds = seconds

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """What the engine is told of the tools."""
        return [tool.schema for tool in self._tools.values()]

    async def run(self, call: Call, *, run_id: UUID, thread_id: UUID | None) -> Result:
        """Run one call, or return its stored result if it ran before.

        A mistake of the model becomes a result that it can read; a failure of ours is raised.
        """
        stored = await self._effects.find(run_id, call.id)
        if stored is not None:
            return Result(True, stored.text, tuple(Source(**s) for s in stored.sources))
        result = await self._try(call, CallContext(run_id, call.id, thread_id))
        metrics.TOOL_CALLS.labels(
            call.name if call.name in self._tools else "unknown", "ok" if result.ok else "error"
        ).inc()
        if result.ok:
            effect = Effect(result.text, [asdict(source) for source in result.sources])
            await self._effects.record(
                run_id, call.id, thread_id, call.name, call.arguments, effect
            )
        return result

    async def _try(self, call: Call, context: CallContext) -> Result:
        tool = self._tools.get(call.name)
        if tool is None:
            return Result(False, f"error: no such tool; there are {', '.join(self._tools)}")
        try:
            arguments = json.loads(call.arguments or "{}")
            if not isinstance(arguments, dict):
                raise InvalidArguments("arguments must be one JSON object")
            async with asyncio.timeout(self._seconds):
                output = await tool.run(arguments, context)
            return Result(True, output.text, output.sources)
        except (ValueError, InvalidArguments) as error:
            return Result(False, f"error: wrong arguments: {error}")
        except ToolUnavailable as error:
            return Result(False, f"error: {error}")
        except TimeoutError:
            return Result(False, f"error: {call.name} took longer than {self._seconds:g} s")
        except AgentAppError:
            raise
        except Exception:
            log.exception("tool_failed", tool=call.name, call=call.id)
            return Result(False, f"error: {call.name} failed")
