"""Starts runs, keeps their leases, and says goodbye to them at shutdown."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import structlog
from langgraph.checkpoint.base import BaseCheckpointSaver

from agent_app.access.admission import Doorkeeper, Visit
from agent_app.access.keys import Key
from agent_app.agent.attempt import Attempt, Machinery
from agent_app.agent.cache import Wish
from agent_app.agent.conversation import Message, estimate
from agent_app.agent.graph import RunContext, build_graph
from agent_app.agent.pool import EnginePool
from agent_app.agent.queue_terms import Flow
from agent_app.agent.retelling import HeardEvent
from agent_app.agent.routing import Errand
from agent_app.agent.run import Run
from agent_app.agent.switchboard import Switchboard
from agent_app.config import Config, Limits
from agent_app.errors import (
    DatabaseUnavailable,
    Draining,
    InvalidRequest,
    Overloaded,
    RunInterrupted,
    Stopped,
    ThreadBusy,
)
from agent_app.observability import metrics
from agent_app.state.runs import (
    RELEASE_REQUESTED,
    STOP_REQUESTED,
    Asked,
    Claim,
    Runs,
    Unsettled,
)
from agent_app.tools.approval import ApprovalDesk
from agent_app.tools.toolbox import Toolbox

BUSY_WAIT_SECONDS = 2.0  # a client that reconnects at once meets its old run still letting go
BUSY_POLL_SECONDS = 0.1
CACHE_WORD_SECONDS = 10.0  # more than the cache may ever take; then the header stays away
FINISHED_RUNS = 64
"""Runs remembered after their end, for clients whose line broke near it."""
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
    run_id: UUID | None = None
    """Names the run on its thread: only that one is gone on with."""
    history: tuple[Message, ...] = ()
    """What was said before `message`, where that begins a thread."""
    seconds: float | None = None
    """Wall clock in place of `limits.turn_seconds`."""
    background: bool = False
    """Nobody waits for the answer: where engines are full, the key's other requests go first."""
    wish: Wish = field(default_factory=Wish)
    """What the client wants of the cache of answers."""
    heard: HeardEvent | None = None
    """The last event that a client heard whose stream broke; with it `message` is None."""


class Runner:
    """Everything that runs the agent in this process."""

    def __init__(
        self,
        config: Config,
        engines: dict[str, EnginePool],
        switchboard: Switchboard,
        toolbox: Toolbox,
        desk: ApprovalDesk,
        runs: Runs,
        saver: BaseCheckpointSaver[str],
        door: Doorkeeper,
    ) -> None:
        self._config = config
        self._engines = engines
        self._switchboard = switchboard
        self._desk = desk
        self._runs = runs
        self._door = door
        self._machinery = Machinery(
            config, toolbox, runs, saver, door, build_graph(saver), build_graph(None)
        )
        self._active: dict[Run, asyncio.Task[None]] = {}
        self._finished: deque[Run] = deque(maxlen=FINISHED_RUNS)
        self._draining = False

    async def start(self, ask: Ask) -> Run:
        """Start the run that answers a request and return it at once.

        A client that says what it heard of a run that is still here gets that run back.

        Raises:
            AgentAppError: It cannot start; nothing was changed.
        """
        if ask.heard is not None and (run := await self._find(ask, ask.heard)) is not None:
            return run
        self.check_room()
        model = ask.model or self._config.default_model
        engine = self.engine(model)
        visit = await self._door.let_in(ask.key, ask.feature, tokens=_estimate(ask, engine))
        try:
            if ask.messages is not None or ask.message is not None:  # else it has its model
                router = self._switchboard.router
                model = await router.choose_model(model, visit, ask.correlation)
            if ask.messages is not None:
                run = self._launch_stateless(ask, ask.messages, model, visit)
            else:
                run = await self._launch_on_thread(ask, model, visit)
        except BaseException:
            await self._door.turn_back(visit)
            raise
        try:
            word = await run.cache_word(CACHE_WORD_SECONDS)
        except BaseException:
            await run.stop()
            raise
        run.headers = {**visit.headers, **({"X-Cache": word} if word else {})}
        return run

    def check_room(self) -> None:
        """Refuse another run where this process has no room or time for it.

        Raises:
            Draining: It shuts down.
            Overloaded: It has all the runs it may hold.
        """
        if self._draining:
            raise Draining("this process is shutting down")
        if len(self._active) >= self._config.limits.runs:
            raise Overloaded("too many runs are under way")

    def engine(self, model: str | None) -> EnginePool:
        """Return the engines of a model, None for the default one.

        Raises:
            InvalidRequest: There is no such model.
        """
        model = model or self._config.default_model
        if model not in self._engines:
            raise InvalidRequest(
                f"unknown model {model!r}; there are: {', '.join(sorted(self._engines))}"
            )
        return self._engines[model]

    async def _find(self, ask: Ask, heard: HeardEvent) -> Run | None:
        """Return the run that a client lost, if it is here and knows all the client missed."""
        for run in [*self._active, *self._finished]:
            if (run.run_id, run.thread_id, run.key_id) != (
                heard.run_id,
                ask.thread_id,
                ask.key.id,
            ):
                continue
            if run.why_stopped is None and run.has_more_than(heard.place):
                metrics.STREAMS_REJOINED.inc()
                return run
            await run.stop(RunInterrupted("its client came back for more than is kept"))
        return None

    def _launch_stateless(self, ask: Ask, messages: list[Message], model: str, visit: Visit) -> Run:
        run = Run(uuid4(), None)
        numbered = [{**m, "id": f"{run.run_id}.in{n}"} for n, m in enumerate(messages)]
        context = self._context(run, ask, visit, model, resident=ask.key.resident)
        return self.launch(run, Attempt(self._machinery, context, visit, messages=numbered).work)

    async def _launch_on_thread(self, ask: Ask, model: str, visit: Visit) -> Run:
        asked = Asked(
            thread_id=ask.thread_id or uuid4(),
            key_id=ask.key.id,
            message=ask.message,
            model=model,
            correlation=ask.correlation,
            new_thread=ask.message is not None,
            feature=ask.feature,
            heard_run=ask.heard.run_id if ask.heard else None,
            run_id=ask.run_id,
        )
        claim = await self._claim(asked)
        run = Run(
            claim.run_id,
            asked.thread_id,
            key_id=ask.key.id,
            attempt=claim.attempt,
            resumed=claim.resumed,
        )
        context = self._context(
            run,
            ask,
            visit,
            claim.model,
            resident=claim.resident or ask.key.resident,
            session_tokens=claim.session_tokens,
        )
        context.earlier, context.earlier_seconds = claim.used, claim.used_seconds
        run.caught_up_from = heard = ask.heard.place if ask.heard else None
        attempt = Attempt(self._machinery, context, visit, claim=claim, heard=heard)
        return self.launch(run, attempt.work)

    async def _claim(self, asked: Asked) -> Claim:
        patience = BUSY_WAIT_SECONDS + self._config.limits.reconnect_seconds
        requested = asked.heard_run is None
        deadline = time.monotonic() + patience
        while True:
            try:
                return await self._runs.claim(asked)
            except ThreadBusy:
                if time.monotonic() > deadline:
                    raise
            for run in [run for run in self._active if run.thread_id == asked.thread_id]:
                if run.left:  # its client is back, and wants it told anew
                    await run.stop()
            if not requested:  # the client's line to another process broke, which may not know
                requested = True
                await self._runs.request_stop(asked.thread_id, asked.key_id, what=RELEASE_REQUESTED)
                deadline += self._config.limits.lease_seconds / 3
            await asyncio.sleep(BUSY_POLL_SECONDS)

    def _context(
        self,
        run: Run,
        ask: Ask,
        visit: Visit,
        model: str,
        *,
        resident: bool,
        session_tokens: int = 0,
    ) -> RunContext:
        if model not in self._engines:
            raise InvalidRequest(f"the thread's model {model!r} is no longer served")
        errand = Errand(
            visit,
            run.run_id,
            run.thread_id,
            ask.correlation,
            resident,
            shows_calls=bool(ask.options.get("tools")),
        )
        return RunContext(
            run=run,
            key_id=ask.key.id,
            correlation=ask.correlation,
            engine=self._switchboard.connect(
                model, errand, ask.wish, run.tell_cache, resumed=run.resumed
            ),
            toolbox=self._machinery.toolbox,
            desk=self._desk,
            limits=self._limits_for(ask),
            system_prompt=self._config.system_prompt,
            session_tokens=session_tokens,
            options=ask.options,
            may_retract=ask.may_retract,
            flow=self.flow(ask.key, background=ask.background),
            history=ask.history,
        )

    def flow(self, key: Key, *, background: bool = False) -> Flow:
        """Return whose turn a key's requests take where engines are full."""
        weight = key.limits.over(self._config.limits).weight or 1
        return Flow(str(key.id), weight, background)

    def _limits_for(self, ask: Ask) -> Limits:
        own = {"turn_seconds": ask.seconds} if ask.seconds else {}
        return self._config.limits.model_copy(update=own)

    def launch(self, run: Run, work: Callable[[Run], Awaitable[None]]) -> Run:
        """Begin a run and keep track of it until it ends."""
        task = run.start(work)
        self._active[run] = task
        metrics.RUNS_IN_FLIGHT.inc()

        def forget(_task: "asyncio.Task[None]") -> None:
            self._active.pop(run, None)
            run.tell_cache("")  # a run that asked no model, such as one told again
            if run.thread_id is not None:
                self._finished.append(run)
            metrics.RUNS_IN_FLIGHT.dec()

        task.add_done_callback(forget)
        return run

    async def recover_usage(self, left: list[Unsettled]) -> None:
        """Count what runs had used whose process, an earlier life of this one, was killed."""
        for lost in left:
            try:
                loaded = await self._machinery.load(lost.thread_id)
                await self._machinery.settle(lost, loaded, lost.feature)
            except Exception as error:  # whoever resumes or abandons the run counts it
                log.warning("usage_not_recovered", run=str(lost.run_id), why=str(error))

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
                elif ours[run_id] == STOP_REQUESTED:
                    await run.stop(Stopped(STOPPED_BY_CLIENT))
                elif ours[run_id] == RELEASE_REQUESTED:
                    await run.stop(RunInterrupted("its client came back elsewhere"))

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
        await asyncio.gather(*(run.stop() for run in list(self._active) if run.left))
        if self._active:
            await asyncio.wait(
                set(self._active.values()), timeout=self._config.limits.drain_seconds
            )
        goodbye = Draining("this process is shutting down; resume the thread")
        await asyncio.gather(*(run.stop(goodbye) for run in list(self._active)))


def _estimate(ask: Ask, engine: EnginePool) -> int:
    most = engine.model.max_output_tokens
    asked = min(ask.options.get("max_tokens") or most, most)
    return int(asked) + estimate(ask.messages or [*ask.history, ask.message])
