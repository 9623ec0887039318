"""What becomes of a job when an attempt at it ends in an error."""

from agent_app.config import Jobs
from agent_app.errors import (
    AgentAppError,
    DatabaseUnavailable,
    Draining,
    NothingToResume,
    Overloaded,
    RateLimited,
    Stopped,
    ThreadBusy,
)
from agent_app.state.job_queue import ClaimedJob, Ended, PutOff
from agent_app.state.jobs import JobStatus

SHORT_PAUSE_SECONDS = 2.0
"""For what passes by itself: a thread or a process that is busy, a database that restarts."""
FIRST_STRIKE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 900.0

# Nothing of the job's own: it waits for as long as it may.
_PASSING = (RateLimited, Overloaded, ThreadBusy, DatabaseUnavailable, NothingToResume)


def judge(error: AgentAppError, job: ClaimedJob, bounds: Jobs) -> Ended | PutOff:
    """Return whether a job goes on after an error, and when.

    A process that shuts down hands it back at once; a limit or a busy thread makes it wait; a
    failing engine counts as a strike; anything else would come again and ends the job.
    """
    told = describe(error)
    if isinstance(error, Stopped):
        return Ended(JobStatus.CANCELLED, error=told)
    if isinstance(error, Draining):
        return PutOff(0, strike=False, error=told)
    if isinstance(error, _PASSING):
        return wait(_retry_after(error), error, job, bounds)
    if error.retryable:
        return strike(error, job, bounds)
    return Ended(JobStatus.FAILED, error=told)


def strike(error: AgentAppError, job: ClaimedJob, bounds: Jobs) -> Ended | PutOff:
    """Return a pause after an attempt that may be the job's own fault, or its end after the last.

    The first time it is tried again at once: mostly it was not its fault.
    """
    strikes = job.strikes + 1
    if strikes >= bounds.attempts:
        return Ended(
            JobStatus.FAILED,
            error={
                "code": "gave_up",
                "message": f"gave up after {strikes} attempts; the last: {error.message}",
            },
        )
    pause = 0.0
    if strikes > 1:
        pause = min(FIRST_STRIKE_SECONDS * 4.0 ** (strikes - 2), LONGEST_PAUSE_SECONDS)
    return PutOff(pause, strike=True, error=describe(error))


def wait(seconds: float, error: AgentAppError, job: ClaimedJob, bounds: Jobs) -> Ended | PutOff:
    """Return a pause, or the job's end where it has waited for too long."""
    if job.age_seconds > bounds.wait_seconds:
        return Ended(
            JobStatus.FAILED,
            error={
                "code": "gave_up",
                "message": f"waited for more than {bounds.wait_seconds:g} s; the last reason: "
                f"{error.message}",
            },
        )
    return PutOff(seconds, strike=False, error=describe(error))


def describe(error: AgentAppError) -> dict[str, str]:
    """Return what a client may know of an error: no place, no cause."""
    return {"code": error.code, "message": error.message.replace("\0", "")}


def _retry_after(error: AgentAppError) -> float:
    named = error.headers.get("Retry-After", "")
    return max(float(named) if named.isdigit() else 0.0, SHORT_PAUSE_SECONDS)
