"""The agent: a chat step and a tools step on LangGraph, which keeps the state.

The chat step streams from the engine itself: LangChain's model classes cost several times the CPU
per token.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict
from uuid import UUID

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from agent_app.agent.answer import Answer
from agent_app.agent.bounds import Turn, check_step, count_calls
from agent_app.agent.conversation import Message, estimate, make_prompt, merge
from agent_app.agent.events import (
    NO_USAGE,
    ClientToolCalls,
    Retract,
    Token,
    ToolEnd,
    ToolStart,
    Usage,
)
from agent_app.agent.pool import EnginePool, Withdrawn
from agent_app.config import Limits
from agent_app.tools.toolbox import Call, Toolbox


class State(TypedDict):
    """What a checkpoint holds."""

    messages: Annotated[list[Message], merge]
    turn: Turn


@dataclass(slots=True)
class RunContext:
    """What a run needs and a checkpoint does not hold."""

    run_id: UUID
    thread_id: UUID | None
    correlation: str
    engine: EnginePool
    toolbox: Toolbox
    limits: Limits
    system_prompt: str
    session_tokens: int
    options: dict[str, Any]
    """Sampling parameters the client chose, and its own tools."""
    may_retract: bool
    usage: Usage = NO_USAGE
    engine_seconds: float = 0.0
    """Wall clock of the streams so far, waiting for an engine included."""
    answer: Message | None = None
    finish_reason: str = "stop"
    request_ids: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        """Number the requests to the engine within this run."""
        self.request_ids = (f"{self.correlation}.{n}" for n in itertools.count(1))

    @property
    def client_has_tools(self) -> bool:
        """The client brought tools of its own: ours stay out and calls go back to it."""
        return bool(self.options.get("tools"))


Graph = CompiledStateGraph[State, RunContext, State, State]


async def chat(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
    """Ask the model for the next message and stream it."""
    context, turn = runtime.context, state["turn"]
    check_step(turn, context.limits, session_tokens=context.session_tokens)
    write = get_stream_writer()
    step = f"{turn['run_id']}.{turn['steps']}"
    answer = Answer(step)
    stream = context.engine.stream(
        _request(state["messages"], context),
        request_ids=context.request_ids,
        may_retract=context.may_retract,
    )
    started = time.monotonic()
    try:
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Withdrawn):
                    write(Retract(step))
                    answer = Answer(step)
                    continue
                answer.add(chunk)
                if chunk.text:
                    write(Token(chunk.text, step))
                if chunk.tool_calls and context.client_has_tools:
                    write(ClientToolCalls(list(chunk.tool_calls)))
    finally:
        context.engine_seconds += time.monotonic() - started
    context.usage += answer.usage
    context.answer, context.finish_reason = answer.message, answer.finish_reason
    used: Turn = {
        **turn,
        "steps": turn["steps"] + 1,
        "tokens": turn["tokens"] + answer.usage.total,
    }
    return {"messages": [answer.message], "turn": used}


async def tools(state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
    """Run the calls of the last message, one after another."""
    context, turn = runtime.context, state["turn"]
    calls = [
        Call(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in state["messages"][-1]["tool_calls"]
    ]
    counts = count_calls(turn, [(call.name, call.arguments) for call in calls], context.limits)
    write = get_stream_writer()
    results: list[Message] = []
    for call in calls:
        write(ToolStart(call.id, call.name, call.arguments))
        result = await context.toolbox.run(call, run_id=context.run_id, thread_id=context.thread_id)
        write(ToolEnd(call.id, call.name, result.ok, result.text, result.sources))
        results.append(
            {
                "id": f"{call.id}.result",
                "role": "tool",
                "tool_call_id": call.id,
                "content": result.text,
            }
        )
    return {"messages": results, "turn": {**turn, "calls": counts}}


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
    request["messages"] = make_prompt(
        messages,
        system=context.system_prompt,
        tokens=model.context_length - request["max_tokens"] - estimate(request.get("tools")),
    )
    return request


def build_graph(saver: BaseCheckpointSaver[str] | None) -> Graph:
    """Return the compiled graph; without a saver it keeps nothing."""
    graph = StateGraph(State, RunContext)
    graph.add_node("chat", chat)
    graph.add_node("tools", tools)
    graph.add_edge(START, "chat")
    graph.add_conditional_edges("chat", _after_chat, ["tools", END])
    graph.add_edge("tools", "chat")
    return graph.compile(checkpointer=saver)
