"""Starts runs, keeps their leases, and says goodbye to them at shutdown."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from agent_app.access.admission import Doorkeeper, Visit
from agent_app.access.keys import Key
from agent_app.agent.bounds import begin_turn
from agent_app.agent.conversation import Message, answer_open_calls, estimate
from agent_app.agent.events import Done, Event, Failed, Token
from agent_app.agent.graph import Graph, RunContext, State, build_graph
from agent_app.agent.pool import EnginePool
from agent_app.agent.run import Run
from agent_app.config import Config
from agent_app.errors import (
    AgentAppError,
    BoundExceeded,
    DatabaseUnavailable,
    Draining,
    InvalidRequest,
    Overloaded,
    RunInterrupted,
    Stopped,
    ThreadBusy,
)
from agent_app.observability import metrics
from agent_app.state.database import database_errors
from agent_app.state.runs import Asked, Claim, Runs, Status
from agent_app.state.usage import Spent
from agent_app.tools.toolbox import Toolbox

BUSY_WAIT_SECONDS = 2.0  # a client that reconnects at once meets its old run still letting go
BUSY_POLL_SECONDS = 0.1
STOPPED_BY_CLIENT = "the run was stopped as its client asked"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request in the runner's terms.

    With `messages` it keeps no state; otherwise it works on a thread, where `message` None means
    to go on with what was interrupted.
    """

    key: Key
    correlation: str
    feature: str = ""
    """What the client says the tokens are for."""
    model: str | None = None
    thread_id: UUID | None = None
    message: str | None = None
    messages: list[Message] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    may_retract: bool = True


class Runner:
    """Everything that runs the agent in this process."""

    def __init__(
        self,
        config: Config,
        engines: dict[str, EnginePool],
        toolbox: Toolbox,
        runs: Runs,
        saver: BaseCheckpointSaver[str],
        door: Doorkeeper,
    ) -> None:
        self._config = config
        self._engines = engines
        self._toolbox = toolbox
        self._runs = runs
        self._saver = saver
        self._door = door
        self._on_thread: Graph = build_graph(saver)
        self._stateless: Graph = build_graph(None)
        self._active: dict[Run, asyncio.Task[None]] = {}
        self._draining = False

    async def start(self, ask: Ask) -> Run:
        """Start the run that answers a request and return it at once.

        Raises:
            AgentAppError: It cannot start; nothing was changed.
        """
        if self._draining:
            raise Draining("this process is shutting down")
        if len(self._active) >= self._config.limits.runs:
            raise Overloaded("too many runs are under way")
        model = ask.model or self._config.default_model
        if model not in self._engines:
            raise InvalidRequest(
                f"unknown model {model!r}; there are: {', '.join(sorted(self._engines))}"
            )
        visit = await self._door.let_in(ask.key, ask.feature, tokens=self._estimate(ask, model))
        try:
            if ask.messages is not None:
                run = self._launch_stateless(ask, ask.messages, model, visit)
            else:
                run = await self._launch_on_thread(ask, model, visit)
        except BaseException:
            await self._door.turn_back(visit)
            raise
        run.headers = visit.headers
        return run

    def _estimate(self, ask: Ask, model: str) -> int:
        most = self._engines[model].model.max_output_tokens
        asked = min(ask.options.get("max_tokens") or most, most)
        return int(asked) + estimate(ask.messages or ask.message)

    def _launch_stateless(self, ask: Ask, messages: list[Message], model: str, visit: Visit) -> Run:
        run = Run(uuid4(), None)
        numbered = [{**m, "id": f"{run.run_id}.in{n}"} for n, m in enumerate(messages)]
        context = self._context(run, ask, model, session_tokens=0)

        async def work(run: Run) -> None:
            graph_input: State = {"messages": numbered, "turn": begin_turn(str(run.run_id))}
            await self._work(run, self._stateless, graph_input, context, visit, claim=None)

        return self._track(run, work)

    async def _launch_on_thread(self, ask: Ask, model: str, visit: Visit) -> Run:
        asked = Asked(
            thread_id=ask.thread_id or uuid4(),
            key_id=ask.key.id,
            message=ask.message,
            model=model,
            correlation=ask.correlation,
            new_thread=ask.message is not None,
        )
        claim = await self._claim(asked)
        run = Run(claim.run_id, asked.thread_id, attempt=claim.attempt, resumed=claim.resumed)
        context = self._context(run, ask, claim.model, session_tokens=claim.session_tokens)

        async def work(run: Run) -> None:
            await self._work(run, self._on_thread, None, context, visit, claim=claim)

        return self._track(run, work)

    async def _claim(self, asked: Asked) -> Claim:
        deadline = time.monotonic() + BUSY_WAIT_SECONDS
        while True:
            try:
                return await self._runs.claim(asked)
            except ThreadBusy:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(BUSY_POLL_SECONDS)

    def _context(self, run: Run, ask: Ask, model: str, *, session_tokens: int) -> RunContext:
        if model not in self._engines:
            raise InvalidRequest(f"the thread's model {model!r} is no longer served")
        return RunContext(
            run_id=run.run_id,
            thread_id=run.thread_id,
            correlation=ask.correlation,
            engine=self._engines[model],
            toolbox=self._toolbox,
            limits=self._config.limits,
            system_prompt=self._config.system_prompt,
            session_tokens=session_tokens,
            options=ask.options,
            may_retract=ask.may_retract,
        )

    def _track(self, run: Run, work: Callable[[Run], Awaitable[None]]) -> Run:
        task = run.start(work)
        self._active[run] = task
        metrics.RUNS_IN_FLIGHT.inc()

        def forget(_task: "asyncio.Task[None]") -> None:
            self._active.pop(run, None)
            metrics.RUNS_IN_FLIGHT.dec()

        task.add_done_callback(forget)
        return run

    async def _work(
        self,
        run: Run,
        graph: Graph,
        graph_input: State | None,
        context: RunContext,
        visit: Visit,
        *,
        claim: Claim | None,
    ) -> None:
        """Run the graph to its end, write down how it ended, and say the last word."""
        status, last = await self._attempt(run, graph, graph_input, context, claim)
        if isinstance(last, Failed):
            log.warning("run_ended", run=str(run.run_id), status=status, why=str(last.error))
        last = await self._finish(run, claim, context, visit, status, last)
        await run.tell_last(last)
        if status is Status.DONE and claim is not None and claim.replay is None:
            await self._prune(run)

    async def _attempt(
        self,
        run: Run,
        graph: Graph,
        graph_input: State | None,
        context: RunContext,
        claim: Claim | None,
    ) -> tuple[Status, Done | Failed]:
        try:
            async with asyncio.timeout(self._config.limits.turn_seconds):
                if claim is None:
                    await self._stream(run, graph, graph_input, context)
                elif claim.replay is None:
                    await self._stream(run, graph, await self._input_for(run, claim), context)
                return Status.DONE, await self._conclude(run, context, claim)
        except asyncio.CancelledError:
            why = run.why_stopped or RunInterrupted("the run was stopped")
            return Status.INTERRUPTED, Failed(why)
        except TimeoutError:
            return Status.FAILED, Failed(BoundExceeded("the turn used all of its time"))
        except AgentAppError as error:
            return Status.INTERRUPTED if error.retryable else Status.FAILED, Failed(error)
        except Exception:
            log.exception("run_failed", run=str(run.run_id))
            return Status.FAILED, Failed(AgentAppError("internal error"))

    async def _input_for(self, run: Run, claim: Claim) -> State | None:
        """Return the graph's input: None where a checkpoint knows this run's message already."""
        known: list[Message] = []
        if claim.resumed or claim.after_unfinished:
            async with database_errors():
                tuple_ = await self._saver.aget_tuple(_thread_config(run))
            values = tuple_.checkpoint["channel_values"] if tuple_ else {}
            known = values.get("messages") or []
            waiting = (values.get("__start__") or {}).get("messages") or []
            if claim.resumed and any(m["id"] == str(run.run_id) for m in [*known, *waiting]):
                metrics.RUNS_RESUMED.inc()
                return None
        human = {"id": str(run.run_id), "role": "user", "content": claim.message}
        return {
            "messages": [*answer_open_calls(known), human],
            "turn": begin_turn(str(run.run_id)),
        }

    async def _stream(
        self, run: Run, graph: Graph, graph_input: State | None, context: RunContext
    ) -> None:
        started, waiting = time.monotonic(), True
        async with database_errors():
            config = _thread_config(run)
            config["recursion_limit"] = 2 * self._config.limits.steps + 5
            stream = graph.astream(
                graph_input,
                config,
                context=context,
                stream_mode="custom",
                durability="sync" if run.thread_id else None,
            )
            async with contextlib.aclosing(cast(AsyncGenerator[Event, None], stream)) as events:
                async for event in events:
                    if waiting and isinstance(event, Token):
                        waiting = False
                        metrics.FIRST_TOKEN.labels(context.engine.name).observe(
                            time.monotonic() - started
                        )
                    await run.tell(event)

    async def _conclude(self, run: Run, context: RunContext, claim: Claim | None) -> Done:
        """Return the last word; a run that was complete already is told from its checkpoint."""
        answer, replayed = context.answer, False
        if answer is None:
            replayed = True
            async with database_errors():
                tuple_ = await self._saver.aget_tuple(_thread_config(run))
            messages = tuple_.checkpoint["channel_values"].get("messages") if tuple_ else None
            if not messages or messages[-1]["role"] != "assistant":
                raise AgentAppError("the thread's checkpoint has no answer", place=str(run.run_id))
            answer = messages[-1]
            await run.tell(Token(answer["content"], answer["id"]))
        usage = claim.replay if claim and claim.replay else context.usage
        await run.tell(usage)
        return Done(
            answer["id"],
            answer["content"],
            context.finish_reason,
            replayed,
            tuple(answer.get("tool_calls") or ()),
        )

    async def _finish(
        self,
        run: Run,
        claim: Claim | None,
        context: RunContext,
        visit: Visit,
        status: Status,
        last: Done | Failed,
    ) -> Done | Failed:
        """Write down how the run ended and what it used; return what to tell of it."""
        run.ending = True
        spent = Spent(context.usage, context.engine_seconds, visit.feature)
        usage, model = context.usage, context.engine.name
        metrics.RUNS.labels(model, status).inc()
        metrics.TOKENS.labels(model, "prompt").inc(usage.prompt_tokens)
        metrics.TOKENS.labels(model, "completion").inc(usage.completion_tokens)
        if claim is not None and claim.replay is None:
            why = str(last.error) if isinstance(last, Failed) else None
            try:
                kept = await self._runs.finish(claim.run_id, claim.attempt, status, spent, why)
                if not kept:
                    log.warning("run_lost", run=str(run.run_id))
            except DatabaseUnavailable as error:  # the lease runs out; the run can be resumed
                last = Failed(error)
        elif claim is None:
            await self._door.count_stateless(visit, model, spent)
        # A client that leaves in mid-answer hides what the engine did: no refund for it.
        await self._door.see_off(visit, model, spent, known=run.why_stopped is None)
        return last

    async def _prune(self, run: Run) -> None:
        """Drop all but the newest checkpoint: each holds the whole message list again."""
        try:
            await self._saver.aprune([str(run.thread_id)], strategy="keep_latest")
        except Exception as error:  # the next run prunes it too
            log.info("prune_put_off", thread=str(run.thread_id), why=type(error).__name__)

    async def keep_leases(self) -> None:
        """Renew leases for ever; stop runs that another process took over."""
        while True:
            await asyncio.sleep(self._config.limits.lease_seconds / 3)
            await self._door.renew()
            held = {run.run_id: run for run in list(self._active) if run.thread_id}
            if not held:
                continue
            try:
                ours = await self._runs.renew(list(held))
            except DatabaseUnavailable as error:
                log.warning("leases_not_renewed", why=str(error))
                continue
            for run_id, run in held.items():
                if run not in self._active:
                    continue
                if run_id not in ours:
                    await run.stop(RunInterrupted("another process took the run over"))
                elif ours[run_id]:
                    await run.stop(Stopped(STOPPED_BY_CLIENT))

    async def stop(self, thread_id: UUID, key_id: UUID) -> bool:
        """Stop a thread's run: at once if it is here, else when its process renews its lease.

        Returns:
            Whether there was one.

        Raises:
            NotFound: The thread is not this key's, or not there.
        """
        run_id = await self._runs.request_stop(thread_id, key_id)
        for run in [run for run in self._active if run.run_id == run_id]:
            await run.stop(Stopped(STOPPED_BY_CLIENT))
        return run_id is not None

    async def drain(self) -> None:
        """Take no more runs, let those under way finish for a while, then stop them."""
        self._draining = True
        if self._active:
            await asyncio.wait(
                set(self._active.values()), timeout=self._config.limits.drain_seconds
            )
        goodbye = Draining("this process is shutting down; resume the thread")
        await asyncio.gather(*(run.stop(goodbye) for run in list(self._active)))


def _thread_config(run: Run) -> RunnableConfig:
    if run.thread_id is None:
        return {}
    return {"configurable": {"thread_id": str(run.thread_id)}}
