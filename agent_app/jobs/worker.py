"""Works on jobs: claims them, runs them as runs on their threads, and writes down their ends.

A job's run has the job's id. So whoever takes a job up after a crash finds out how far it came:
the run never began, was interrupted and goes on from its checkpoint, or is done and only its job
is not.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from asgi_correlation_id import correlation_id

from agent_app.access.keys import Key, Keyring
from agent_app.agent.events import Done, Failed
from agent_app.agent.run import Run
from agent_app.agent.runner import Ask, Runner
from agent_app.config import Jobs
from agent_app.errors import (
    AgentAppError,
    BoundExceeded,
    Draining,
    RunInterrupted,
    Stopped,
)
from agent_app.jobs.verdict import judge, strike
from agent_app.observability import metrics
from agent_app.state.audit import Audit
from agent_app.state.bell import Bell, Work, wait_for_ring
from agent_app.state.job_queue import ClaimedJob, Ended, JobQueue, PutOff
from agent_app.state.jobs import JobStatus
from agent_app.state.runs import Status
from agent_app.state.threads import Threads

POLL_SECONDS = 1.0
QUIET_SECONDS = 60.0
SETTLE_SECONDS = 1.0
"""Between attempts to write down an end while the database does not answer."""
DRAIN_SECONDS = 8.0
CANCELLED = "the job was cancelled"

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    """A job under way here, its run once it has one, and why it shall stop."""

    job: ClaimedJob
    run: Run | None = None
    why: AgentAppError | None = None

    async def stop(self, why: AgentAppError) -> None:
        self.why = self.why or why
        if self.run is not None:
            await self.run.stop(self.why)


class Workers:
    """All that works on jobs in this process.

    Args:
        bounds: How many, how long, how often.
        queue: Where jobs wait.
        runner: Runs them.
        keyring: Tells whether their keys still open.
        threads: Has the answers of runs whose jobs did not hear them.
        audit: Is told of each end.
        bell: Rings when there is a job or one shall be cancelled.
        lease_seconds: A third of it is the beat of leases.
    """

    def __init__(
        self,
        bounds: Jobs,
        *,
        queue: JobQueue,
        runner: Runner,
        keyring: Keyring,
        threads: Threads,
        audit: Audit,
        bell: Bell,
        lease_seconds: float,
    ) -> None:
        self._bounds = bounds
        self._queue = queue
        self._runner = runner
        self._keyring = keyring
        self._threads = threads
        self._audit = audit
        self._bell = bell
        self._beat_seconds = lease_seconds / 3
        self._held: set[_Held] = set()
        self._draining = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what an earlier life of this process left, and begin to work."""
        try:
            if left := await self._queue.release_own():
                log.warning("jobs_interrupted_by_our_last_end", count=left)
        except AgentAppError as error:  # their leases run out and say the same a little later
            log.warning("jobs_not_released", why=str(error))
        self._tasks = [
            asyncio.create_task(self._work(), name=f"job-worker-{n}")
            for n in range(self._bounds.workers)
        ]
        self._tasks.append(asyncio.create_task(self._keep_leases(), name="job-leases"))

    async def drain(self) -> None:
        """Take no more jobs and hand back those under way, for another process to go on with."""
        self._draining.set()
        goodbye = Draining("the process shuts down; the job goes on elsewhere")
        await asyncio.gather(*(held.stop(goodbye) for held in list(self._held)))
        if workers := self._tasks[:-1]:
            await asyncio.wait(workers, timeout=DRAIN_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        """Work on one job after another until the process drains."""
        rung = self._bell.subscribe(Work.JOBS)
        while not self._draining.is_set():
            rung.clear()
            took = False
            try:
                job = await self._queue.claim(per_key=self._bounds.per_key)
                if job is not None:
                    took = True
                    await self._carry_out(job)
            except AgentAppError as error:
                log.warning("jobs_not_reached", why=str(error))
            except Exception:
                log.exception("job_worker_failed")
            if not took:
                await self._rest(rung)

    async def _rest(self, rung: asyncio.Event) -> None:
        """Wait for a ring, the next look, or the drain; not in step with other workers."""
        seconds = POLL_SECONDS * random.uniform(0.7, 1.3)  # noqa: S311 - jitter
        ringing = asyncio.create_task(wait_for_ring(rung, seconds))
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({ringing, draining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ringing.cancel()
            draining.cancel()

    async def _carry_out(self, job: ClaimedJob) -> None:
        """Work on a claimed job and write down what became of it."""
        correlated = correlation_id.set(job.correlation)
        held = _Held(job)
        self._held.add(held)
        if job.attempt == 1:
            metrics.JOB_START.observe(max(0.0, (job.started_at - job.created_at).total_seconds()))
        started = time.monotonic()
        try:
            outcome = await self._attempt(held)
            await self._settle(job, outcome)
        finally:
            self._held.discard(held)
            correlation_id.reset(correlated)
            metrics.JOB_RUN.observe(time.monotonic() - started)

    async def _attempt(self, held: _Held) -> Ended | PutOff:
        job = held.job
        try:
            status = await self._queue.run_status(job.id)
            if status in (Status.DONE, Status.FAILED, Status.ABANDONED):
                return await self._end_of(job, status)
            key = await self._keyring.find(job.key_id)
            if self._draining.is_set():
                raise Draining("the process shuts down")
            if held.why is not None:
                raise held.why
            return await self._run(held, key, begun=status is not None)
        except AgentAppError as error:
            return judge(held.why or error, job, self._bounds)
        except Exception:
            log.exception("job_attempt_broke", job=str(job.id))
            return strike(AgentAppError("internal error"), job, self._bounds)

    async def _run(self, held: _Held, key: Key, *, begun: bool) -> Ended | PutOff:
        job = held.job
        left = self._bounds.seconds - job.run_seconds
        if left <= 0:
            raise BoundExceeded(f"the job used all of its {self._bounds.seconds:g} seconds")
        again = f".a{job.attempt}" if job.attempt > 1 else ""  # ids new to the engine
        ask = Ask(
            key=key,
            correlation=f"{job.correlation}{again}",
            feature=job.feature,
            model=job.model,
            thread_id=job.thread_id,
            message=None if begun else job.message,
            history=job.history,
            run_id=job.id,
            seconds=left,
            background=True,
        )
        held.run = run = await self._runner.start(ask)
        try:
            if held.why is not None:  # it came while the run was on its way
                await run.stop(held.why)
            async for event in run.events(quiet_seconds=QUIET_SECONDS):
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Done):
                    return _done(event.message_id, event.content, event.finish_reason)
            raise RunInterrupted("the run ended without a word")
        finally:
            await run.stop()

    async def _end_of(self, job: ClaimedJob, status: str) -> Ended:
        """Return the end of a job whose run is over: its process died before it could say so."""
        if status == Status.ABANDONED:
            raise AgentAppError("the thread went on with another message")
        if status == Status.FAILED:
            # Why is in app.runs, with places that are not for clients.
            raise AgentAppError("the run failed, and its process died before it could say why")
        _, messages = await self._threads.read(job.key_id, job.thread_id)
        for message in reversed(messages):
            if message["role"] == "assistant" and message["id"].startswith(f"{job.id}."):
                return _done(message["id"], message["content"], "stop")
        raise AgentAppError("the answer is no longer in the thread")

    async def _settle(
        self, job: ClaimedJob, outcome: Ended | PutOff, *, expired: bool = False
    ) -> None:
        """Write down an outcome, however long the database takes, unless the job is another's."""
        while True:
            try:
                kept = await self._queue.let_go(job, outcome, expired=expired)
                break
            except AgentAppError as error:
                if self._draining.is_set() or expired:  # its lease tells the others
                    raise
                log.warning("job_not_settled", job=str(job.id), why=str(error))
                await asyncio.sleep(SETTLE_SECONDS)
        if not kept and isinstance(outcome, PutOff):
            # Either it is no longer ours, or it is to be cancelled and so is not put off.
            outcome = Ended(JobStatus.CANCELLED, error=outcome.error)
            kept = await self._queue.let_go(job, outcome, expired=expired)
        if not kept:
            log.warning("job_lost", job=str(job.id), attempt=job.attempt)
            return
        if isinstance(outcome, Ended):
            await self._note_end(job, outcome)
        else:
            metrics.JOBS_PUT_OFF.labels(outcome.error["code"]).inc()
            log.info("job_put_off", job=str(job.id), seconds=outcome.seconds, why=outcome.error)

    async def _note_end(self, job: ClaimedJob, outcome: Ended) -> None:
        metrics.JOBS_ENDED.labels(outcome.status).inc()
        await self._audit.record(
            "job.end",
            key_id=job.key_id,
            thread_id=job.thread_id,
            run_id=job.id,
            correlation=job.correlation,
            details={
                "status": str(outcome.status),
                "attempt": job.attempt,
                "code": (outcome.error or {}).get("code", ""),
                "age_seconds": round((datetime.now(UTC) - job.created_at).total_seconds(), 3),
            },
        )

    async def _keep_leases(self) -> None:
        """Renew leases, stop what shall stop, and take in the jobs of dead processes, for ever."""
        rung = self._bell.subscribe(Work.CANCELS)
        swept = float("-inf")
        while True:
            rung.clear()
            try:
                await self._renew()
                if time.monotonic() - swept >= self._beat_seconds:
                    swept = time.monotonic()
                    await self._sweep()
            except AgentAppError as error:
                log.warning("job_leases_not_renewed", why=str(error))
            except Exception:
                log.exception("job_leases_failed")
            await wait_for_ring(rung, self._beat_seconds)

    async def _renew(self) -> None:
        held = {item.job.id: item for item in self._held}
        if not held:
            return
        attempts = [(item.job.id, item.job.attempt) for item in held.values()]
        ours = await self._queue.renew(attempts)
        for job_id, item in held.items():
            if item not in self._held:
                continue
            if job_id not in ours:
                await item.stop(RunInterrupted("another process took the job over"))
            elif ours[job_id]:
                await item.stop(Stopped(CANCELLED))

    async def _sweep(self) -> None:
        """Take in jobs whose process died, and tell the metrics how many there are."""
        died = RunInterrupted("the process that ran it died")
        for job in await self._queue.expired():
            outcome = strike(died, job, self._bounds)
            if job.cancel_requested:
                outcome = judge(Stopped(CANCELLED), job, self._bounds)
            await self._settle(job, outcome, expired=True)
        counts = await self._queue.counts()
        for status in (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING):
            metrics.JOBS.labels(status).set(counts.get(status, (0, 0.0))[0])
        metrics.JOB_QUEUE_AGE.set(max(0.0, counts.get(JobStatus.QUEUED, (0, 0.0))[1]))


def _done(message_id: str, content: str, finish_reason: str) -> Ended:
    # PostgreSQL's JSON cannot hold a NUL.
    content = content.replace("\0", "\N{REPLACEMENT CHARACTER}")
    result = {"message_id": message_id, "content": content, "finish_reason": finish_reason}
    return Ended(JobStatus.DONE, result=result)
