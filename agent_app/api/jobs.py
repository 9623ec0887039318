"""`/jobs`: long work, submitted now and fetched later; another key's jobs do not exist for it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_app.agent.conversation import Message
from agent_app.api.errors import documented
from agent_app.api.schemas import Body, Text
from agent_app.api.services import ChatKey, FeatureTag, Services, ServicesNow, current_correlation
from agent_app.errors import InvalidRequest
from agent_app.observability import metrics
from agent_app.state.jobs import JobStatus, Submission
from agent_app.webhooks.destinations import URL_CHARACTERS

MESSAGES = 1000

router = APIRouter(tags=["jobs"])

_ID = "0b6ad6a5-3e0c-4a55-9f0e-0a6c2b7d7a11"
_EXAMPLE: dict[str, Any] = {
    "id": _ID,
    "status": "done",
    "thread_id": "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e",
    "model": "demo",
    "feature": "reports",
    "attempt": 1,
    "created_at": "2026-11-21T10:00:00Z",
    "started_at": "2026-11-21T10:00:00.1Z",
    "finished_at": "2026-11-21T10:03:20Z",
    "next_at": None,
    "run_seconds": 199.9,
    "cancelling": False,
    "webhook_url": "https://hooks.example.com/done",
    "usage": {"prompt_tokens": 900, "completion_tokens": 120, "total_tokens": 1020},
    "error": None,
}
_ANSWER: dict[str, Any] = {
    "message_id": f"{_ID}.1",
    "content": "The report: …",
    "finish_reason": "stop",
}


_NOT_FOUND = documented(404, "not_found", "no such job", "It does not exist for this key.")
_UNDER_WAY = documented(
    409, "job_under_way", "the job is not over; cancel it first", "Only what is over is deleted."
)
_SUBMIT_ERRORS = {
    **documented(404, "not_found", "no such thread", "It does not exist for this key."),
    **documented(
        422,
        "idempotency_key_reused",
        "this Idempotency-Key was used for another request",
        "A repeat must be the same request.",
    ),
    **documented(
        429,
        "rate_limit_exceeded",
        "this key has 100 jobs waiting, which is its limit",
        "Some must end first.",
        retryable=True,
    ),
}


class JobMessage(BaseModel):
    """One message of a conversation to begin with."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text


class JobRequest(Body):
    """Body of `POST /jobs`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"message": "Write the report on last week's orders."},
                {
                    "messages": [
                        {"role": "system", "content": "You write reports."},
                        {"role": "user", "content": "Write the one on last week's orders."},
                    ],
                    "webhook_url": "https://hooks.example.com/done",
                },
                {"thread_id": _EXAMPLE["thread_id"], "message": "And the week before?"},
            ]
        },
    )

    message: Text | None = None
    messages: list[JobMessage] | None = Field(
        default=None,
        min_length=1,
        max_length=MESSAGES,
        description="A conversation to begin a thread with; the last is the user's.",
    )
    thread_id: UUID | None = Field(
        default=None, description="A thread of this key; by default the job begins one."
    )
    model: str | None = Field(default=None, max_length=200)
    webhook_url: str | None = Field(
        default=None,
        max_length=URL_CHARACTERS,
        description="Told when the job is over, if jobs.webhook_hosts has its host.",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> "JobRequest":
        if (self.message is None) == (self.messages is None):
            raise ValueError("give either message or messages")
        if self.messages and self.thread_id:
            raise ValueError("messages begin a thread of their own; with thread_id give message")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError("the last of messages must be the user's")
        return self

    def conversation(self) -> tuple[str, tuple[Message, ...]]:
        """Return the message to answer, and what was said before it."""
        if self.messages is None:
            return self.message or "", ()
        *before, last = self.messages
        return last.content, tuple(message.model_dump() for message in before)


class JobUsage(BaseModel):
    """Tokens in the engine's count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class JobError(BaseModel):
    """Why a job failed, or for what it waits."""

    code: str
    message: str


class JobResult(BaseModel):
    """What the agent answered; the thread has the whole of it."""

    message_id: str
    content: str
    finish_reason: str


class JobSummary(BaseModel):
    """A job without its result."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    status: JobStatus
    thread_id: UUID
    model: str
    feature: str
    attempt: int = Field(description="How often it was taken up.")
    created_at: datetime
    started_at: datetime | None = Field(description="When it was taken up first.")
    finished_at: datetime | None
    next_at: datetime | None = Field(description="While it waits: when it is tried again.")
    run_seconds: float = Field(description="Wall clock of its attempts so far.")
    cancelling: bool = Field(description="It runs and is to be cancelled.")
    webhook_url: str | None
    usage: JobUsage
    error: JobError | None


class Job(JobSummary):
    """A job."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_EXAMPLE, "result": _ANSWER}]})

    result: JobResult | None


class JobPage(BaseModel):
    """Jobs, newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"jobs": [_EXAMPLE], "next_cursor": None}]}
    )

    jobs: list[JobSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page.")


class JobDeleted(BaseModel):
    """What a deletion did."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": _ID, "deleted": True}]})

    id: UUID
    deleted: Literal[True] = True


@router.post("/jobs", status_code=202, responses=_SUBMIT_ERRORS)
async def submit_job(
    body: JobRequest,
    response: Response,
    services: ServicesNow,
    key: ChatKey,
    feature: FeatureTag = "",
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            pattern=r"^[\x21-\x7e]{1,200}$",
            description="The same again gives the same job, for as long as that is there.",
        ),
    ] = None,
) -> Job:
    """Take a job in; it runs when it is its turn, and survives restarts."""
    model = body.model or services.config.default_model
    if model not in services.config.models:
        known = ", ".join(sorted(services.config.models))
        raise InvalidRequest(f"unknown model {model!r}; there are: {known}")
    if body.webhook_url is not None:
        await services.destinations.resolve(body.webhook_url)
    message, history = body.conversation()
    row, repeated = await services.jobs.submit(
        Submission(
            key_id=key.id,
            message=message,
            history=history,
            model=model,
            feature=feature,
            correlation=current_correlation(),
            thread_id=body.thread_id,
            webhook_url=body.webhook_url,
            idempotency_key=idempotency_key,
        ),
        most_queued=services.config.limits.key_queued_jobs,
    )
    response.headers["Location"] = f"/jobs/{row['id']}"
    if repeated:
        response.headers["Idempotency-Replayed"] = "true"
    else:
        metrics.JOBS_SUBMITTED.inc()
        await _record(services, "job.submit", row)
    return _whole(row)


@router.get("/jobs")
async def list_jobs(
    services: ServicesNow,
    key: ChatKey,
    status: JobStatus | None = None,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 30,
) -> JobPage:
    """List this key's jobs, newest first."""
    rows, following = await services.jobs.page(
        key.id, status=status, cursor=int(cursor) if cursor else None, limit=limit
    )
    return JobPage(
        jobs=[JobSummary(**_fields(row)) for row in rows],
        next_cursor=str(following) if following else None,
    )


@router.get("/jobs/{job_id}", responses=_NOT_FOUND)
async def read_job(job_id: UUID, services: ServicesNow, key: ChatKey) -> Job:
    """Return a job: how far it is, and its result or why there is none."""
    return _whole(await services.jobs.read(key.id, job_id))


@router.post("/jobs/{job_id}/cancel", responses=_NOT_FOUND)
async def cancel_job(job_id: UUID, services: ServicesNow, key: ChatKey) -> Job:
    """Cancel a job: at once where it waits, else as soon as its process hears of it.

    One that is over stays as it is.
    """
    row, changed = await services.jobs.cancel(key.id, job_id)
    if changed:
        await _record(services, "job.cancel", row)
    return _whole(row)


@router.delete("/jobs/{job_id}", responses={**_NOT_FOUND, **_UNDER_WAY})
async def delete_job(job_id: UUID, services: ServicesNow, key: ChatKey) -> JobDeleted:
    """Delete a job that is over, with its result and its webhook; its thread stays."""
    await services.jobs.delete(key.id, job_id)
    return JobDeleted(id=job_id)


async def _record(services: Services, kind: str, row: dict[str, Any]) -> None:
    await services.audit.record(
        kind,
        key_id=row["key_id"],
        thread_id=row["thread_id"],
        run_id=row["id"],
        correlation=current_correlation(),
        details={"model": row["model"], "feature": row["feature"], "status": row["status"]},
    )


def _whole(row: dict[str, Any]) -> Job:
    return Job(**_fields(row), result=row["result"])


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    same = ("id", "status", "thread_id", "model", "feature", "attempt", "created_at", "started_at",
            "finished_at", "run_seconds", "webhook_url", "error")  # fmt: skip
    prompt, completion = row["prompt_tokens"], row["completion_tokens"]
    return {
        **{name: row[name] for name in same},
        "next_at": row["next_at"] if row["status"] == JobStatus.WAITING else None,
        "cancelling": row["status"] == JobStatus.RUNNING and row["cancel_requested"],
        "usage": JobUsage(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        ),
    }
