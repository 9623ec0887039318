"""Every error the agent app raises on purpose: a message, a place and a cure.

`code`, `status` and `retryable` are what a client may see; causes stay in the log.
"""


class AgentAppError(Exception):
    """Base of all errors of the app.

    Args:
        message: What happened, fit for a client or an operator.
        place: Where: a file and key, a table, an endpoint (never sent to clients).
        cure: What to do about it.
        headers: HTTP headers for the answer.
    """

    code = "internal_error"
    status = 500
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        place: str = "",
        cure: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}
        self.message = message
        self.place = place
        self.cure = cure

    def __str__(self) -> str:
        """Return place, message and cure in one line for the operator."""
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}. Cure: {self.cure}" if self.cure else text


class ConfigError(AgentAppError):
    """The configuration or a credential is missing or wrong."""

    code = "bad_configuration"


class InvalidRequest(AgentAppError):
    """The request cannot be served as it stands."""

    code = "invalid_request"
    status = 400


class Unauthorized(AgentAppError):
    """No key, or one that is unknown, expired or revoked."""

    code = "invalid_api_key"
    status = 401


class Forbidden(AgentAppError):
    """The key lacks the scope."""

    code = "insufficient_scope"
    status = 403


class NotFound(AgentAppError):
    """The named thing does not exist for this key."""

    code = "not_found"
    status = 404


class ThreadBusy(AgentAppError):
    """A run of this thread is under way elsewhere."""

    code = "thread_busy"
    status = 409
    retryable = True


class NothingToResume(AgentAppError):
    """The thread has no run that could go on."""

    code = "nothing_to_resume"
    status = 409


class BoundExceeded(AgentAppError):
    """A limit of the turn or the session stopped the run."""

    code = "limit_exceeded"
    status = 422


class JobUnderWay(AgentAppError):
    """The job has not ended, so what it needs must stay."""

    code = "job_under_way"
    status = 409


class IdempotencyMismatch(AgentAppError):
    """An `Idempotency-Key` came again with another request."""

    code = "idempotency_key_reused"
    status = 422


class Overloaded(AgentAppError):
    """This process has all the runs it may hold."""

    code = "overloaded"
    status = 503
    retryable = True


class Draining(AgentAppError):
    """The process shuts down; the run waits at its last checkpoint."""

    code = "draining"
    status = 503
    retryable = True


class RunInterrupted(AgentAppError):
    """The run was stopped from outside and can be resumed."""

    code = "interrupted"
    status = 503
    retryable = True


class Stopped(AgentAppError):
    """The client asked for the run to stop; `resume` would go on with it."""

    code = "stopped"
    status = 409


class DatabaseUnavailable(AgentAppError):
    """PostgreSQL does not answer."""

    code = "database_unavailable"
    status = 503
    retryable = True


class EngineUnavailable(AgentAppError):
    """No engine finished the request within its budget of time and attempts."""

    code = "engine_unavailable"
    status = 503
    retryable = True


class QueueFull(Overloaded):
    """More wait for an engine than may.

    503 and not 429: no limit of the key is reached; the service lacks engines, and whoever watches
    its 5xx should know. OpenAI's clients try both again, after `Retry-After`.
    """

    code = "queue_full"
    status = 503
    retryable = True


class QueueTimeout(Overloaded):
    """No engine was free for as long as a step may wait; 503 as for a full queue."""

    code = "queue_timeout"
    status = 503
    retryable = True


class EngineRefused(AgentAppError):
    """The engine says the request itself is wrong (a 4xx)."""

    code = "engine_refused"
    status = 400


class NotOffered(AgentAppError):
    """The engine does not know this part of the API."""

    code = "not_offered"
    status = 404


class RateLimited(AgentAppError):
    """A limit of the key is reached for now."""

    code = "rate_limit_exceeded"
    status = 429
    retryable = True


class BudgetSpent(AgentAppError):
    """The key's budget of this month is spent.

    429 and not 402: OpenAI answers the same, so clients have a class and a branch for it;
    `x-should-retry: false` keeps them from trying again.
    """

    code = "insufficient_quota"
    status = 429


class AlreadyDecided(AgentAppError):
    """A call that waited for approval was decided, or cannot be decided any more."""

    code = "already_decided"
    status = 409


class ApprovalRequired(AgentAppError):
    """The run waits until a person has approved a tool call; then `resume` goes on with it."""

    code = "approval_required"
    status = 409
