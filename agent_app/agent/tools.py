"""The agent's own tools, and how each call is run exactly once."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import structlog

from agent_app.errors import AgentAppError
from agent_app.observability import metrics
from agent_app.state.effects import Effects
from agent_app.state.knowledge import Knowledge

log = structlog.get_logger(__name__)


class InvalidArguments(Exception):
    """The model called a tool wrongly; the text tells it how."""


class Tool(Protocol):
    """Something the model can call."""

    name: str
    schema: dict[str, Any]

    async def run(self, arguments: dict[str, Any]) -> str:
        """Do it and return what the model shall read."""


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


class SearchKnowledge:
    """Full-text search over the ingested documents."""

    name = "search_knowledge"
    schema: dict[str, Any] = {  # noqa: RUF012 - constant
        "type": "function",
        "function": {
            "name": "search_knowledge",
            "description": "Search the knowledge base.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}},
                "required": ["query"],
            },
        },
    }

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    async def run(self, arguments: dict[str, Any]) -> str:
        """Return the best passages, numbered, or `nothing`."""
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            raise InvalidArguments('give {"query": "<what to look for>"}')
        passages = await self._knowledge.search(query)
        lines = [f"[{n}] {p.title}: {p.text}" for n, p in enumerate(passages, start=1)]
        return "\n".join(lines) or "nothing"


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
            return Result(True, stored)
        result = await self._try(call)
        metrics.TOOL_CALLS.labels(
            call.name if call.name in self._tools else "unknown", "ok" if result.ok else "error"
        ).inc()
        if result.ok:
            await self._effects.record(
                run_id, call.id, thread_id, call.name, call.arguments, result.text
            )
        return result

    async def _try(self, call: Call) -> Result:
        tool = self._tools.get(call.name)
        if tool is None:
            return Result(False, f"error: no such tool; there are {', '.join(self._tools)}")
        try:
            arguments = json.loads(call.arguments or "{}")
            if not isinstance(arguments, dict):
                raise InvalidArguments("arguments must be one JSON object")
            async with asyncio.timeout(self._seconds):
                return Result(True, await tool.run(arguments))
        except (ValueError, InvalidArguments) as error:
            return Result(False, f"error: wrong arguments: {error}")
        except TimeoutError:
            return Result(False, f"error: {call.name} took longer than {self._seconds:g} s")
        except AgentAppError:
            raise
        except Exception:
            log.exception("tool_failed", tool=call.name, call=call.id)
            return Result(False, f"error: {call.name} failed")
