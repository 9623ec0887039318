"""The agent's own tools, and how each call is run exactly once."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import structlog

from agent_app.errors import AgentAppError
from agent_app.observability import metrics
from agent_app.observability.run import watch_tool
from agent_app.state.audit import Audit
from agent_app.state.effects import UNKNOWN, Effect, EffectKey, Effects
from agent_app.tools.arguments import InvalidArguments, read_arguments, write_arguments

__all__ = ["InvalidArguments"]  # what tools raise; it lives with the arguments

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallContext:
    """Which call it is: a tool with effects keys them by `run_id` and `call_id`."""

    run_id: UUID
    call_id: str
    thread_id: UUID | None
    key_id: UUID | None = None
    """Whose run it is."""
    shown: tuple["Source", ...] = ()
    """What the run's calls before this one gave, so that numbers go on."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a result comes from, for a citation; what is unknown is empty."""

    title: str
    path: str
    number: int = 0
    """As which the model is asked to cite it, `[1]`; the same throughout a run."""
    heading: str = ""
    chunk: int = 0
    url: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool gives back."""

    text: str
    sources: tuple[Source, ...] = ()
    ok: bool = True


class Tool(ABC):
    """Something the model can call; a tool of ours names this class as its base."""

    name: str
    seconds: float | None = None
    """Wall clock of one call; None is the configuration's `limits.tool_seconds`."""

    @property
    def repeatable(self) -> bool:
        """Whether the same call made twice does no more than made once.

        So does what only reads, or keys its effect by the call. Any other call is written down
        before it is made, and not made again if its outcome got lost.
        """
        return False

    @property
    def available(self) -> bool:
        """Whether the model is told of it now."""
        return True

    @property
    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """What the engine is told of it."""

    async def check(self, arguments: dict[str, Any]) -> None:  # noqa: B027 - most have no need
        """Raise InvalidArguments where they are wrong, before anybody is asked to approve them."""

    @abstractmethod
    async def run(self, arguments: dict[str, Any], context: CallContext) -> Output:
        """Do it and return what the model shall read."""


class ToolUnavailable(Exception):
    """What the tool needs does not answer, and nothing was done; the text tells the model."""


class OutcomeUnknown(Exception):
    """The call was sent and no answer came; the text tells the model."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the model made it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that could be made: its tool, and its arguments as they will be executed."""

    tool: Tool
    arguments: dict[str, Any]
    text: str
    """The arguments' canonical text."""


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
        audit: Where calls of runs without a thread are told; others are told with their effect.
        seconds: Wall clock of one call.
    """

    def __init__(
        self, tools: list[Tool], effects: Effects, audit: Audit, *, seconds: float
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._effects = effects
        self._audit = audit
        self._seconds = seconds

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """What the engine is told of the tools that are there now."""
        return [tool.schema for tool in self._tools.values() if tool.available]

    async def prepare(self, call: Call) -> Prepared | Result:
        """Find the tool and read the arguments; a mistake of the model is a result it can read."""
        tool = self._tools.get(call.name)
        if tool is None:
            there = ", ".join(t.name for t in self._tools.values() if t.available)
            return self._count("unknown", Result(False, f"error: no such tool; there are {there}"))
        try:
            arguments = read_arguments(call.arguments)
            await tool.check(arguments)
        except InvalidArguments as error:
            return self._count(tool.name, Result(False, f"error: wrong arguments: {error}"))
        except ToolUnavailable as error:
            return self._count(tool.name, Result(False, f"error: {error}"))
        return Prepared(tool, arguments, write_arguments(arguments))

    async def recall(self, run_id: UUID, call_id: str) -> Result | None:
        """Return the stored result of a call that ran before."""
        stored = await self._effects.find(run_id, call_id)
        return _result(stored) if stored else None

    async def run(self, call: Prepared, context: CallContext) -> Result:
        """Make a call that `find` knows nothing of.

        A mistake of the model becomes a result that it can read; a failure of ours is raised.
        Without a thread nothing is stored: such a run is never replayed.
        """
        tool, key = call.tool, _key(call, context)
        stored = context.thread_id is not None
        if stored and not tool.repeatable and not await self._effects.begin(key):
            log.warning("outcome_unknown", tool=tool.name, call=context.call_id)
            await self._effects.record(key, UNKNOWN)
            return self._count(tool.name, _result(UNKNOWN))
        with watch_tool(tool.name, context.call_id) as span:
            result = await self._try(call, context)
            if not result.ok:
                span.fail("tool_error")
        if stored and (result.ok or not tool.repeatable):
            sources = [asdict(source) for source in result.sources]
            await self._effects.record(key, Effect(result.text, sources, result.ok))
        elif not stored:
            details = {"tool": tool.name, "call": context.call_id, "ok": result.ok}
            await self._audit.record(
                "tool.call", key_id=context.key_id, run_id=context.run_id, details=details
            )
        return self._count(tool.name, result)

    async def _try(self, call: Prepared, context: CallContext) -> Result:
        tool = call.tool
        seconds = tool.seconds or self._seconds
        try:
            async with asyncio.timeout(seconds):
                output = await tool.run(call.arguments, context)
            return Result(output.ok, output.text, output.sources)
        except (ValueError, InvalidArguments) as error:
            return Result(False, f"error: wrong arguments: {error}")
        except ToolUnavailable as error:
            return Result(False, f"error: {error}")
        except OutcomeUnknown as error:
            return Result(False, f"error: {error}{_doubt(tool)}")
        except TimeoutError:
            text = f"error: {tool.name} took longer than {seconds:g} s{_doubt(tool)}"
            return Result(False, text)
        except AgentAppError:
            raise
        except Exception:
            log.exception("tool_failed", tool=tool.name, call=context.call_id)
            return Result(False, f"error: {tool.name} failed{_doubt(tool)}")

    def _count(self, name: str, result: Result) -> Result:
        metrics.TOOL_CALLS.labels(name, "ok" if result.ok else "error").inc()
        return result


def _doubt(tool: Tool) -> str:
    if tool.repeatable:
        return ""
    return "; whether it took effect is not known: find out by other means before you repeat it"


def _key(call: Prepared, context: CallContext) -> EffectKey:
    return EffectKey(
        context.run_id,
        context.call_id,
        context.thread_id,
        call.tool.name,
        call.text,
        context.key_id,
    )


def _result(effect: Effect) -> Result:
    return Result(effect.ok, effect.text, tuple(Source(**s) for s in effect.sources))
