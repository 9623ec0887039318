"""One attempt of a run: from its checkpoint, if it has one, to its last word."""

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from agent_app.access.admission import Doorkeeper, Visit
from agent_app.agent.bounds import Turn, begin_turn
from agent_app.agent.conversation import (
    INTERRUPTED_CALL,
    Message,
    merge,
    open_calls,
    result_message,
    step_id,
)
from agent_app.agent.events import (
    NO_USAGE,
    WAITS_FOR_APPROVAL,
    Done,
    Failed,
    Retract,
    Token,
    Usage,
)
from agent_app.agent.graph import Graph, RunContext, State
from agent_app.agent.retelling import end_places, retell
from agent_app.agent.run import Numbered, Place, Run
from agent_app.config import Config
from agent_app.errors import (
    AgentAppError,
    ApprovalRequired,
    BoundExceeded,
    DatabaseUnavailable,
    RunInterrupted,
)
from agent_app.observability import metrics
from agent_app.observability.run import describe_run, watch_run
from agent_app.state.database import FIRST_RUN, database_errors
from agent_app.state.runs import Claim, Runs, Status, Unsettled
from agent_app.state.usage import Spent
from agent_app.tools.toolbox import Result, Toolbox

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Machinery:
    """What every run of this process works with."""

    config: Config
    toolbox: Toolbox
    runs: Runs
    saver: BaseCheckpointSaver[str]
    door: Doorkeeper
    on_thread: Graph
    stateless: Graph

    async def load(self, thread_id: UUID) -> "Loaded":
        """Return what the thread's newest checkpoint holds."""
        async with database_errors():
            found = await self.saver.aget_tuple({"configurable": {"thread_id": str(thread_id)}})
        values: dict[str, Any] = found.checkpoint["channel_values"] if found else {}
        waiting = values.get("__start__") or {}
        stored = [*(values.get("messages") or ()), *(waiting.get("messages") or ())]
        messages, turn = stored, waiting.get("turn") or values.get("turn")
        # A step that ended just before its process did is not run again: its writes are applied.
        for _, channel, value in (found.pending_writes or ()) if found else ():
            if channel == "messages":
                messages = merge(messages, value)
            elif channel == "turn":
                turn = value
        return Loaded(messages, turn, stored)

    async def settle(self, lost: Unsettled, loaded: "Loaded", feature: str) -> Spent:
        """Count the finished steps of attempts that died with their process; return their sum.

        Raises:
            DatabaseUnavailable: They are not counted yet.
        """
        spent = loaded.spent_since(lost, feature)
        if spent.usage.total and await self.runs.settle(lost, spent):
            log.info("usage_recovered", run=str(lost.run_id), tokens=spent.usage.total)
            metrics.TOKENS.labels(lost.model, "prompt").inc(spent.usage.prompt_tokens)
            metrics.TOKENS.labels(lost.model, "completion").inc(spent.usage.completion_tokens)
        return spent


@dataclass(frozen=True, slots=True)
class Loaded:
    """Messages and turn of a checkpoint."""

    messages: list[Message]
    """As they will be once the run goes on."""
    turn: Turn | None
    stored: list[Message] = field(default_factory=list)
    """As they are: what another message follows."""

    def knows(self, run_id: UUID) -> bool:
        """Return whether the run's own message is in it."""
        return any(message["id"] == str(run_id) for message in self.messages)

    def completes(self, run_id: UUID) -> bool:
        """Return whether it ends with the run's answer."""
        return (
            self.turn is not None
            and self.turn["run_id"] == str(run_id)
            and self.messages[-1]["role"] == "assistant"
            and not self.messages[-1].get("tool_calls")
        )

    def spent_since(self, lost: Unsettled, feature: str) -> Spent:
        """Return what finished steps used in attempts that nobody counted."""
        usage, seconds = NO_USAGE, 0.0
        if self.turn is not None and self.turn["run_id"] == str(lost.run_id):
            for step in self.turn.get("spent", ()):
                if lost.counted_attempt < step["attempt"] <= lost.last_attempt:
                    usage += Usage(step["prompt_tokens"], step["completion_tokens"])
                    seconds += step["engine_seconds"]
        return Spent(usage, seconds, feature)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt works on.

    With `messages` it keeps no state, with `claim` it works on a thread.
    """

    machinery: Machinery
    context: RunContext
    visit: Visit
    messages: list[Message] | None = None
    claim: Claim | None = None
    heard: Place | None = None
    """The last event that the client has of earlier attempts, where it says so."""

    async def work(self, run: Run) -> None:
        """Run the graph to its end, write down how it ended, and say the last word."""
        model = self.context.engine.name
        with watch_run(run.run_id, run.thread_id, model) as span:
            status, last = await self._try(run)
            span.set(describe_run(status, self.context.usage))
        if isinstance(last, Failed):
            log.warning("run_ended", run=str(run.run_id), status=status, why=str(last.error))
        try:
            last = await self._finish(run, status, last)
        except Exception:  # or the client would wait for ever
            log.exception("run_not_written_down", run=str(run.run_id))
            last = Failed(AgentAppError("internal error"))
        await run.tell_last(last)
        if status is Status.DONE and self.claim is not None and self.claim.replay is None:
            await self._prune(run)

    async def _try(self, run: Run) -> tuple[Status, Done | Failed]:
        try:
            async with asyncio.timeout(self.context.limits.turn_seconds):
                status = await self._run_graph(run)
                return status, await self._conclude(run)
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

    async def _run_graph(self, run: Run) -> Status:
        """Run the graph; return how that leaves the run."""
        try:
            if self.claim is None:
                turn = begin_turn(str(run.run_id))
                await self._work(run, {"messages": self.messages or [], "turn": turn})
            elif self.claim.replay is None:
                await self._work(run, await self._prepare(run, self.claim))
        except ApprovalRequired:
            self.context.finish_reason = WAITS_FOR_APPROVAL
            return Status.WAITING
        return Status.DONE

    async def _prepare(self, run: Run, claim: Claim) -> State | None:
        """Return the graph's input: None where a checkpoint knows this run's message already."""
        assert run.thread_id is not None
        loaded = Loaded([], None)
        if claim.resumed or claim.after_unfinished:
            loaded = await self.machinery.load(run.thread_id)
        if claim.unsettled is not None:
            await self._settle(claim, claim.unsettled, loaded)
        if claim.resumed and loaded.knows(run.run_id):
            metrics.RUNS_RESUMED.inc()
            await self._catch_up(run, loaded)
            return None
        if self.heard is not None:  # of a first step that no checkpoint knows
            await run.tell_again(Numbered(None, Retract(step_id(str(run.run_id), 0))))
        before = [{**m, "id": f"{run.run_id}.in{n}"} for n, m in enumerate(self.context.history)]
        human = {"id": str(run.run_id), "role": "user", "content": claim.message}
        return {
            "messages": [*await self._repair(loaded.stored), *_lost(claim, loaded), *before, human],
            "turn": begin_turn(str(run.run_id)),
        }

    async def _settle(self, claim: Claim, lost: Unsettled, loaded: Loaded) -> None:
        spent = await self.machinery.settle(lost, loaded, self.visit.feature)
        self.context.session_tokens += spent.usage.total
        if lost.run_id == claim.run_id:
            self.context.earlier += spent.usage
            self.context.earlier_seconds += spent.engine_seconds

    async def _catch_up(self, run: Run, loaded: Loaded) -> None:
        """Tell a client that came back what it missed of the checkpoint."""
        if self.heard is None or loaded.turn is None:
            return

        async def recall(call_id: str) -> Result | None:
            return await self.machinery.toolbox.recall(run.run_id, call_id)

        finished = loaded.completes(run.run_id)
        for numbered in await retell(
            loaded.turn, loaded.messages, self.heard, recall, finished=finished
        ):
            await run.tell_again(numbered)

    async def _repair(self, messages: list[Message]) -> list[Message]:
        """Return results for the calls that the turn before left open: the stored ones, if any.

        Calls that older turns left open have no place at the end; the prompt answers them.
        """
        begun = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=0)
        results = []
        for message_id, call in open_calls(messages[begun:]):
            run_id = UUID(message_id.rpartition(".")[0])
            stored = await self.machinery.toolbox.recall(run_id, call["id"])
            if stored is None:
                results.append(result_message(call["id"], INTERRUPTED_CALL))
                continue
            sources = [asdict(source) for source in stored.sources]
            results.append(result_message(call["id"], stored.text, sources))
        return results

    async def _work(self, run: Run, graph_input: State | None) -> None:
        """Run the graph; its nodes tell the run themselves."""
        graph = self.machinery.on_thread if run.thread_id else self.machinery.stateless
        config: RunnableConfig = {"recursion_limit": 2 * self.context.limits.steps + 5}
        if run.thread_id is not None:
            first = self.claim is not None and self.claim.first
            config["configurable"] = {"thread_id": str(run.thread_id), FIRST_RUN: first}
        async with database_errors():
            await graph.ainvoke(
                graph_input,
                config,
                context=self.context,
                durability="sync" if run.thread_id else None,
            )

    async def _conclude(self, run: Run) -> Done:
        """Return the last word; a run that was complete already is told from its checkpoint."""
        answer, replayed, context = self.context.answer, False, self.context
        if answer is None:
            replayed = True
            answer = await self._tell_answer_again(run)
        else:
            await run.tell(context.earlier + context.usage)
        return Done(
            answer["id"],
            answer["content"],
            context.finish_reason,
            replayed,
            tuple(answer.get("tool_calls") or ()),
        )

    async def _tell_answer_again(self, run: Run) -> Message:
        """Tell a complete run's answer, or what a client misses of it, and its usage."""
        assert run.thread_id is not None
        assert self.claim is not None
        loaded = await self.machinery.load(run.thread_id)
        if not loaded.messages or loaded.messages[-1]["role"] != "assistant":
            raise AgentAppError("the thread's checkpoint has no answer", place=str(run.run_id))
        answer = loaded.messages[-1]
        if self.heard is None and answer["content"]:
            await run.tell(Token(answer["content"], answer["id"]))
        if self.claim.replay is None:  # `_prepare` has told the rest
            await run.tell(self.context.earlier + self.context.usage)
        elif self.heard is None or loaded.turn is None:
            await run.tell(self.claim.replay)
        else:
            await self._catch_up(run, loaded)
            place, before_done = end_places(loaded.turn, run.attempt, self.heard)
            if place is None or place > self.heard:
                await run.tell_again(Numbered(place, self.claim.replay))
            run.number_after(before_done)
        return answer

    async def _finish(self, run: Run, status: Status, last: Done | Failed) -> Done | Failed:
        """Write down how the run ended and what it used; return what to tell of it."""
        run.ending = True
        machinery, context, claim = self.machinery, self.context, self.claim
        spent = Spent(
            context.usage,
            # Ours begin at the first chunk, a cloud's with the request: never below 0.
            max(0.0, context.engine_seconds - context.engine.elsewhere_seconds),
            self.visit.feature,
            context.engine.elsewhere,
        )
        usage, model = spent.here, context.engine.name
        metrics.RUNS.labels(model, status).inc()
        metrics.TOKENS.labels(model, "prompt").inc(usage.prompt_tokens)
        metrics.TOKENS.labels(model, "completion").inc(usage.completion_tokens)
        if claim is not None and claim.replay is None:
            why = str(last.error) if isinstance(last, Failed) else None
            try:
                kept = await machinery.runs.finish(claim.run_id, claim.attempt, status, spent, why)
                if not kept:
                    log.warning("run_lost", run=str(run.run_id))
            except DatabaseUnavailable as error:  # the lease runs out; the run can be resumed
                last = Failed(error)
        elif claim is None:
            await machinery.door.count_stateless(
                self.visit,
                model,
                spent,
                run_id=run.run_id,
                status=status,
                correlation=context.correlation,
            )
        await machinery.door.see_off(self.visit, model, spent)
        return last

    async def _prune(self, run: Run) -> None:
        """Drop all but the newest checkpoint: each holds the whole message list again."""
        try:
            await self.machinery.saver.aprune([str(run.thread_id)], strategy="keep_latest")
        except Exception as error:  # the next run prunes it too
            log.info("prune_put_off", thread=str(run.thread_id), why=type(error).__name__)


def _lost(claim: Claim, loaded: Loaded) -> list[Message]:
    """Return the message of a run that died before its first checkpoint was written."""
    if claim.unfinished is None or loaded.knows(claim.unfinished[0]):
        return []
    run_id, message = claim.unfinished
    return [{"id": str(run_id), "role": "user", "content": message}]
