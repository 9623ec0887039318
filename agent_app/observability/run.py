"""What is logged, measured and traced of a run and of its tools."""

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

import structlog

from agent_app.observability import metrics, tracing

if TYPE_CHECKING:
    from agent_app.agent.events import Usage

Node = TypeVar("Node", bound=Callable[..., Awaitable[Any]])


@contextmanager
def watch_run(run_id: UUID, thread_id: UUID | None, model: str) -> Iterator[tracing.Span]:
    """Name the run in every log line within, and trace it."""
    structlog.contextvars.bind_contextvars(run=str(run_id))
    attributes: dict[str, tracing.Value] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "rackhand",
        "gen_ai.request.model": model,
        "agent_app.run.id": str(run_id),
    }
    if thread_id is not None:
        attributes["gen_ai.conversation.id"] = str(thread_id)
    with tracing.span("invoke_agent rackhand", attributes) as span:
        yield span


def describe_run(status: str, usage: "Usage") -> dict[str, tracing.Value]:
    """Return a run's end as attributes."""
    return {
        "agent_app.run.status": str(status),
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }


def watch_step(name: str, node: Node) -> Node:
    """Return a step of the graph that is timed and traced."""

    @functools.wraps(node)
    async def step(state: Any, runtime: Any) -> Any:
        model, number = runtime.context.engine.name, state["turn"]["steps"]
        with (
            metrics.STEP_SECONDS.labels(model, name).time(),
            tracing.span(f"step {name}", {"agent_app.step": number}),
        ):
            return await node(state, runtime)

    return cast(Node, step)


@contextmanager
def watch_tool(name: str, call_id: str) -> Iterator[tracing.Span]:
    """Time and trace a call of a tool."""
    attributes: dict[str, tracing.Value] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": call_id,
    }
    with (
        metrics.TOOL_SECONDS.labels(name).time(),
        tracing.span(f"execute_tool {name}", attributes) as span,
    ):
        yield span
