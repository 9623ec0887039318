"""The agent: a chat step and a tools step on LangGraph, which keeps the state.

The chat step streams from the engine itself: LangChain's model classes cost several times the CPU
per token.
"""

import itertools
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Protocol, TypedDict
from uuid import UUID

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from agent_app.agent.answer import Answer
from agent_app.agent.bounds import (
    StepSpent,
    Turn,
    Used,
    check_step,
    count_calls,
    engine_time_is_up,
)
from agent_app.agent.cache import CachedRoute
from agent_app.agent.clock import EngineClock
from agent_app.agent.conversation import (
    Message,
    answer_open_calls,
    estimate,
    is_result,
    make_prompt,
    merge,
    result_message,
    step_id,
)
from agent_app.agent.events import (
    NO_USAGE,
    Approval,
    ClientToolCalls,
    Event,
    Queued,
    Retract,
    Token,
    ToolEnd,
    ToolStart,
    Usage,
)
from agent_app.agent.neutral import neutral_message
from agent_app.agent.pool import Withdrawn
from agent_app.agent.queue_terms import Flow
from agent_app.agent.routing import Route
from agent_app.agent.run import Run
from agent_app.config import Limits
from agent_app.errors import ApprovalRequired
from agent_app.observability import metrics
from agent_app.observability.arrival import seconds_since_arrival
from agent_app.observability.run import watch_step
from agent_app.tools.approval import ApprovalDesk, Pending, Refused
from agent_app.tools.toolbox import Call, CallContext, Prepared, Result, Source, Toolbox


class State(TypedDict):
    """What a checkpoint holds."""

    messages: Annotated[list[Message], merge]
    turn: Turn


@dataclass(slots=True)
class RunContext:
    """What a run needs and a checkpoint does not hold."""

    run: Run
    key_id: UUID
    correlation: str
    engine: Route | CachedRoute
    toolbox: Toolbox
    desk: ApprovalDesk
    limits: Limits
    system_prompt: str
    session_tokens: int
    """Of the thread, up to this attempt."""
    options: dict[str, Any]
    """Sampling parameters the client chose, and its own tools."""
    may_retract: bool
    flow: Flow
    """Whose turn it takes where engines are full."""
    history: tuple[Message, ...] = ()
    """What was said before the run's message, where that begins a thread."""
    earlier: Usage = NO_USAGE
    """What earlier attempts of this run used."""
    earlier_seconds: float = 0.0
    usage: Usage = NO_USAGE
    """Of this attempt, the answer under way included once it ends."""
    engine_seconds: float = 0.0
    told: int = 0
    """Events of this attempt so far."""
    began: float = field(default_factory=time.monotonic)
    spoke: bool = False
    """A token was told."""
    answer: Message | None = None
    finish_reason: str = "stop"
    request_ids: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        """Number the requests to the engine within this run."""
        self.request_ids = (f"{self.correlation}.{n}" for n in itertools.count(1))

    @property
    def used(self) -> Used:
        """What the turn has used, all its attempts together."""
        return Used(
            self.earlier.total + self.usage.total,
            self.earlier_seconds + self.engine_seconds,
            self.session_tokens + self.usage.total,
        )

    def tell(self, event: Event) -> None:
        """Tell the client; LangGraph's own stream costs some 70 µs an event."""
        self.told += 1
        self.run.tell_at_once(event)
        if not self.spoke and isinstance(event, Token):
            self.spoke = True
            metrics.FIRST_TOKEN.labels(self.engine.name).observe(
                seconds_since_arrival(otherwise=self.began)
            )

    @property
    def client_has_tools(self) -> bool:
        """The client brought tools of its own: ours stay out and calls go back to it."""
        return bool(self.options.get("tools"))


Graph = CompiledStateGraph[State, RunContext, State, State]


class Node(Protocol):
    """A step of the graph."""

    def __call__(
        self, state: State, runtime: Runtime[RunContext]
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """Return what changes in the state."""


async def chat(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
    """Ask the model for the next message and stream it."""
    context, turn = runtime.context, state["turn"]
    check_step(turn, context.limits, context.used)
    step = step_id(turn["run_id"], turn["steps"])
    request = _request(state["messages"], context)
    answer, seconds = await _stream(step, request, context)
    context.answer, context.finish_reason = answer.message, answer.finish_reason
    usage = answer.usage
    spent: StepSpent = {
        "attempt": context.run.attempt,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "engine_seconds": seconds,
    }
    used: Turn = {
        **turn,
        "steps": turn["steps"] + 1,
        "tokens": turn["tokens"] + usage.total,
        "spent": [*turn.get("spent", ()), spent],
    }
    return {"messages": [answer.message], "turn": used}


async def _stream(step: str, request: dict[str, Any], context: RunContext) -> tuple[Answer, float]:
    """Tell the answer as it comes; whatever ends it, what it used is in the context."""
    tell = context.tell
    answer = Answer(step, request["messages"])
    clock = EngineClock(context.limits.turn_engine_seconds - context.used.engine_seconds)
    stream = context.engine.stream(
        request,
        request_ids=context.request_ids,
        may_retract=context.may_retract,
        flow=context.flow,
    )
    try:
        async with clock, aclosing(stream) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Queued):
                    tell(chunk)
                    continue
                if isinstance(chunk, Withdrawn):
                    clock.pause()
                    answer.withdraw(calls_only=chunk.calls_only)
                    if not chunk.calls_only:
                        tell(Retract(step))
                    continue
                clock.go()
                answer.add(chunk)
                if chunk.text:
                    tell(Token(chunk.text, step))
                if chunk.tool_calls and context.client_has_tools:
                    tell(ClientToolCalls(list(chunk.tool_calls)))
    except TimeoutError:
        if clock.expired:
            raise engine_time_is_up(context.limits) from None
        raise
    finally:
        context.usage += answer.usage
        context.engine_seconds += clock.seconds
    return answer, clock.seconds


async def tools(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
    """Run the calls of the last message one after another, then wait for those a person must allow.

    Raises:
        ApprovalRequired: Some wait. The step is then run again from its start, where the calls
            that ran are known by their effects and the others by their requests.
    """
    context, turn = runtime.context, state["turn"]
    calls = [
        Call(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in state["messages"][-1]["tool_calls"]
    ]
    counts = count_calls(turn, [(call.name, call.arguments) for call in calls], context.limits)
    write = context.tell
    results: dict[str, Message] = {}
    shown = _sources(state["messages"])
    for call in calls:
        place = CallContext(
            context.run.run_id, call.id, context.run.thread_id, context.key_id, shown
        )
        outcome = await _call_tool(call, context, place, write)
        if isinstance(outcome, Result):
            sources = [asdict(source) for source in outcome.sources]
            results[call.id] = result_message(call.id, outcome.text, sources)
            shown += outcome.sources
    if waiting := [call for call in calls if call.id not in results]:
        raise ApprovalRequired(f"{len(waiting)} calls wait for approval")
    return {"messages": list(results.values()), "turn": {**turn, "calls": counts}}


def _sources(messages: list[Message]) -> tuple[Source, ...]:
    """Return the sources that tools of ours gave since the last question, which began the run."""
    begun = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=0)
    return tuple(
        Source(**source)
        for message in messages[begun:]
        if is_result(message)
        for source in message.get("sources", ())
    )


async def _call_tool(
    call: Call, context: RunContext, place: CallContext, write: Callable[[Event], None]
) -> Result | Pending:
    """Run one call and tell of it; where a person has yet to allow it, tell of that."""
    asks = context.desk.needed(call.name)
    if not asks:
        write(ToolStart(call.id, call.name, call.arguments))
    found = await _look(call, context, place)
    if isinstance(found, Pending):
        write(Approval(call.id, call.name, found.arguments, found.expires_at))
        return found
    if asks:
        shown = found.text if isinstance(found, Prepared) else call.arguments
        write(ToolStart(call.id, call.name, shown))
    result = await context.toolbox.run(found, place) if isinstance(found, Prepared) else found
    write(ToolEnd(call.id, call.name, result.ok, result.text, result.sources))
    return result


async def _look(call: Call, context: RunContext, place: CallContext) -> Result | Pending | Prepared:
    """Return a call's result if it has one already, its request while nobody decided, or itself."""
    stored = await context.toolbox.recall(place.run_id, place.call_id) if place.thread_id else None
    if stored is not None:
        return stored
    prepared = await context.toolbox.prepare(call)
    if isinstance(prepared, Result):
        return prepared
    verdict = await context.desk.look(prepared, place)
    if isinstance(verdict, Refused):
        return Result(False, verdict.text)
    return verdict if isinstance(verdict, Pending) else prepared


def marked(key: Callable[[Turn], str], node: Node) -> Node:
    """Return a node that notes in the turn which of the run's events told it.

    A client that comes back says which event it heard last; the marks say what that makes of each
    step, whichever process reads them.
    """

    async def run(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        context, before = runtime.context, runtime.context.told
        await context.run.wait_for_room()
        update = await node(state, runtime)
        told = {
            **update["turn"].get("told", {}),
            key(state["turn"]): [context.run.attempt, before, context.told],
        }
        return {**update, "turn": {**update["turn"], "told": told}}

    return run


def _after_chat(state: State, runtime: Runtime[RunContext]) -> str:
    calls = state["messages"][-1].get("tool_calls")
    return "tools" if calls and not runtime.context.client_has_tools else END


def _request(messages: list[Message], context: RunContext) -> dict[str, Any]:
    model, options = context.engine.model, context.options
    request: dict[str, Any] = {"temperature": model.temperature, **options}
    request["max_tokens"] = min(
        options.get("max_tokens") or model.max_output_tokens, model.max_output_tokens
    )
    if not context.client_has_tools and context.toolbox.schemas:
        request["tools"] = context.toolbox.schemas
    prompt = make_prompt(
        answer_open_calls(messages) if context.run.thread_id else messages,
        system=context.system_prompt,
        tokens=model.context_length - request["max_tokens"] - estimate(request.get("tools")),
    )
    own = prompt[:1] if context.system_prompt else []
    request["messages"] = [*own, *map(neutral_message, prompt[len(own) :])]
    return request


def build_graph(saver: BaseCheckpointSaver[str] | None) -> Graph:
    """Return the compiled graph; without a saver it keeps nothing."""
    graph = StateGraph(State, RunContext)
    chat_step = marked(lambda turn: f"{turn['steps']}", chat)
    tools_step = marked(lambda turn: f"{turn['steps'] - 1}.tools", tools)
    graph.add_node("chat", watch_step("chat", chat_step))
    graph.add_node("tools", watch_step("tools", tools_step))
    graph.add_edge(START, "chat")
    graph.add_conditional_edges("chat", _after_chat, ["tools", END])
    graph.add_edge("tools", "chat")
    return graph.compile(checkpointer=saver)
