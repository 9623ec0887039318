"""A request in the engine's own protocol, passed on: bounded, limited and counted, not understood.

The engine is always asked for a stream, whatever its client wants: so an answer that is cut short
can still be counted, by its pieces.
"""

import asyncio
import itertools
import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import structlog

from agent_app.access.admission import Doorkeeper, Visit
from agent_app.access.keys import Key
from agent_app.agent.bounds import engine_time_is_up
from agent_app.agent.clock import EngineClock
from agent_app.agent.conversation import estimate
from agent_app.agent.events import NO_USAGE, Done, Failed, Relayed, Usage
from agent_app.agent.pool import EnginePool
from agent_app.agent.queue_terms import Flow
from agent_app.agent.run import Run
from agent_app.agent.runner import Runner
from agent_app.config import Limits
from agent_app.errors import AgentAppError, BoundExceeded, EngineUnavailable, RunInterrupted
from agent_app.observability import metrics
from agent_app.state.runs import Status
from agent_app.state.usage import Spent

RESPONSES = "/v1/responses"
ENDS = frozenset({"response.completed", "response.incomplete"})
FAILURES = frozenset({"response.failed", "error"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RelayAsk:
    """What to pass on, and for whom."""

    key: Key
    correlation: str
    feature: str
    model: str | None
    body: dict[str, Any]
    """In the engine's words; `max_output_tokens` is bounded on the way."""


class Relay:
    """Passes requests of `/v1/responses` on to engines; a run each, which keeps no state."""

    def __init__(self, runner: Runner, door: Doorkeeper, limits: Limits) -> None:
        self._runner = runner
        self._door = door
        self._limits = limits

    async def start(self, ask: RelayAsk) -> Run:
        """Pass a request on; the run's events are `Relayed`, then `Done` or `Failed`.

        Raises:
            AgentAppError: It cannot start.
        """
        self._runner.check_room()
        engine = self._runner.engine(ask.model)
        most = engine.model.max_output_tokens
        most = min(ask.body.get("max_output_tokens") or most, most)
        body = {"temperature": engine.model.temperature, **ask.body, "max_output_tokens": most}
        tokens = most + estimate(ask.body)
        visit = await self._door.let_in(ask.key, ask.feature, tokens=tokens)
        flow = self._runner.flow(ask.key)
        passage = _Passage(self._door, self._limits, engine, visit, body, ask.correlation, flow)
        run = self._runner.launch(Run(uuid4(), None, key_id=ask.key.id), passage.work)
        run.headers = visit.headers
        return run


class _Passage:
    """One request on its way."""

    def __init__(
        self,
        door: Doorkeeper,
        limits: Limits,
        engine: EnginePool,
        visit: Visit,
        body: dict[str, Any],
        correlation: str,
        flow: Flow,
    ) -> None:
        self._door = door
        self._limits = limits
        self._engine = engine
        self._visit = visit
        self._body = body
        self._correlation = correlation
        self._flow = flow
        self._request_ids = (f"{correlation}.{n}" for n in itertools.count(1))
        self._clock = EngineClock(limits.turn_engine_seconds)
        self._begun = False
        self._pieces = 0
        self._usage: Usage | None = None

    async def work(self, run: Run) -> None:
        """Pass on, count, and say the last word."""
        status, last = await self._try(run)
        run.ending = True
        if isinstance(last, Failed):
            log.warning("relay_ended", run=str(run.run_id), status=status, why=str(last.error))
        model, usage = self._engine.name, self._used
        spent = Spent(usage, self._clock.seconds, self._visit.feature)
        metrics.RUNS.labels(model, status).inc()
        metrics.TOKENS.labels(model, "prompt").inc(usage.prompt_tokens)
        metrics.TOKENS.labels(model, "completion").inc(usage.completion_tokens)
        await self._door.count_stateless(
            self._visit,
            model,
            spent,
            run_id=run.run_id,
            status=status,
            correlation=self._correlation,
        )
        await self._door.see_off(self._visit, model, spent)
        await run.tell_last(last)

    @property
    def _used(self) -> Usage:
        """The engine's count; of an answer cut short an estimate from prompt and pieces."""
        if self._usage is not None:
            return self._usage
        return Usage(estimate(self._body), self._pieces) if self._begun else NO_USAGE

    async def _try(self, run: Run) -> tuple[Status, Done | Failed]:
        try:
            async with asyncio.timeout(self._limits.turn_seconds):
                await self._pass_on(run)
            return Status.DONE, Done("", "", "stop")
        except asyncio.CancelledError:
            why = run.why_stopped or RunInterrupted("the request was stopped")
            return Status.INTERRUPTED, Failed(why)
        except TimeoutError:
            if self._clock.expired:
                return Status.FAILED, Failed(engine_time_is_up(self._limits))
            return Status.FAILED, Failed(BoundExceeded("the request used all of its time"))
        except AgentAppError as error:
            return Status.FAILED, Failed(error)
        except Exception:
            log.exception("relay_failed", run=str(run.run_id))
            return Status.FAILED, Failed(AgentAppError("internal error"))

    async def _pass_on(self, run: Run) -> None:
        lines = self._engine.relay(
            RESPONSES, self._body, request_ids=self._request_ids, flow=self._flow
        )
        name, ended = "", False
        async with self._clock, aclosing(lines):
            async for line in lines:
                self._clock.go()
                self._begun = True
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:") and name:
                    self._count(name, line[5:])
                    ended = ended or name in ENDS
                    await run.tell(Relayed(f"event: {name}\n{line}\n\n".encode()))
                    name = ""  # lines without one, such as [DONE], are none of this protocol's
        if not ended:
            raise EngineUnavailable("the engine ended the answer before it was complete")

    def _count(self, name: str, data: str) -> None:
        self._pieces += name.endswith(".delta")
        if name not in ENDS | FAILURES:
            return
        try:
            usage = (json.loads(data).get("response") or {}).get("usage")
            if usage:
                self._usage = Usage(usage["input_tokens"], usage["output_tokens"])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise EngineUnavailable(
                "the engine's answer cannot be read", place=data[:200]
            ) from error
        if name in FAILURES:
            raise EngineUnavailable("the engine could not finish the answer", place=data[:200])
