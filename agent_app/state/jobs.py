"""Jobs as their keys see them: submitted, listed, read, cancelled, deleted."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from agent_app.agent.conversation import Message
from agent_app.errors import IdempotencyMismatch, JobUnderWay, NotFound, RateLimited
from agent_app.state.bell import CHANNEL, Work
from agent_app.state.database import Pool, database_errors

WEBHOOK_CHARACTERS = 200_000
"""A longer result is left out of the webhook; the job itself has it."""
FULL_RETRY_SECONDS = 5


class JobStatus(StrEnum):
    """Where a job is on its way."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """Put off for a while; `error` says why."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client wants done."""

    key_id: UUID
    message: str
    history: tuple[Message, ...]
    model: str
    feature: str
    correlation: str
    thread_id: UUID | None
    webhook_url: str | None
    idempotency_key: str | None

    def digest(self) -> str:
        """Return what two requests have in common if they ask for the same."""
        wanted = [self.message, list(self.history), self.model, self.feature,
                  str(self.thread_id), self.webhook_url]  # fmt: skip
        return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


# For a statement in which `ended` returns jobs that end just now: their webhooks, all or nothing.
QUEUE_WEBHOOKS = f"""
hooks AS (
    INSERT INTO app.webhooks (kind, job_id, url, body)
    SELECT 'job.' || status, id, webhook_url, jsonb_build_object(
        'type', 'job.' || status,
        'job', jsonb_build_object(
            'id', id, 'status', status, 'thread_id', thread_id, 'model', model,
            'feature', feature, 'attempt', attempt, 'created_at', created_at,
            'started_at', started_at, 'finished_at', finished_at,
            'usage', jsonb_build_object(
                'prompt_tokens', prompt_tokens, 'completion_tokens', completion_tokens,
                'total_tokens', prompt_tokens + completion_tokens),
            'result', CASE WHEN length(result::text) <= {WEBHOOK_CHARACTERS} THEN result END,
            'result_left_out', coalesce(length(result::text) > {WEBHOOK_CHARACTERS}, false),
            'error', error
        ))::text
    FROM ended WHERE webhook_url IS NOT NULL AND status IN ('done', 'failed', 'cancelled')
)
"""  # noqa: S608 - constants of ours
# One UPDATE for both cases: a job claimed while we wait for its row is then seen as running.
_CANCEL = f"""
WITH ended AS (
    UPDATE app.jobs SET
        cancel_requested = true,
        status = CASE WHEN status = 'running' THEN status ELSE 'cancelled' END,
        finished_at = CASE WHEN status = 'running' THEN NULL ELSE clock_timestamp() END
    WHERE id = %(id)s AND (%(key)s::uuid IS NULL OR key_id = %(key)s)
        AND status IN ('queued', 'waiting', 'running')
    RETURNING *
), {QUEUE_WEBHOOKS}
SELECT id, pg_notify('{CHANNEL}', '{Work.CANCELS}'), pg_notify('{CHANNEL}', '{Work.WEBHOOKS}')
FROM ended
"""  # noqa: S608 - constants of ours
_ONE = "SELECT * FROM app.jobs WHERE id = %(id)s AND (%(key)s::uuid IS NULL OR key_id = %(key)s)"
_PAGE = """
SELECT * FROM app.jobs
WHERE (%(key)s::uuid IS NULL OR key_id = %(key)s)
    AND (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(cursor)s::bigint IS NULL OR number < %(cursor)s)
ORDER BY number DESC LIMIT %(limit)s
"""
_INSERT = f"""
WITH made AS (
    INSERT INTO app.jobs (id, key_id, thread_id, model, feature, correlation_id, message, history,
        webhook_url, idempotency_key, request_sha256)
    VALUES (%(id)s, %(key)s, %(thread)s, %(model)s, %(feature)s, %(correlation)s, %(message)s,
        %(history)s, %(webhook)s, %(idempotency)s, %(digest)s)
    RETURNING *
)
SELECT made.*, pg_notify('{CHANNEL}', '{Work.JOBS}') FROM made
"""  # noqa: S608 - constants of ours


class JobTable:
    """The table `app.jobs`; every call names the key and sees its own jobs only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def submit(self, wanted: Submission, *, most_queued: int) -> tuple[dict[str, Any], bool]:
        """Return the job, and whether it was there already under its idempotency key.

        Args:
            wanted: The job.
            most_queued: Jobs of the key that may wait at a time; 0 is no bound.

        Raises:
            IdempotencyMismatch: That idempotency key was used for another request.
            NotFound: The thread is another key's.
            RateLimited: Too many of the key's jobs wait already.
        """
        async with (
            database_errors(),
            self._pool.connection() as connection,
            connection.transaction(),
        ):
            # One submission of a key at a time: so the bound is exact and a repeat finds its job.
            await connection.execute(
                "SELECT FROM app.api_keys WHERE id = %s FOR NO KEY UPDATE", (wanted.key_id,)
            )
            if (known := await _find_repeat(connection, wanted)) is not None:
                return known, True
            await _check_room(connection, wanted, most_queued)
            values = {
                "id": uuid4(),
                "key": wanted.key_id,
                "thread": wanted.thread_id or uuid4(),
                "model": wanted.model,
                "feature": wanted.feature,
                "correlation": wanted.correlation,
                "message": wanted.message,
                "history": Jsonb(list(wanted.history)),
                "webhook": wanted.webhook_url,
                "idempotency": wanted.idempotency_key,
                "digest": wanted.digest(),
            }
            row = await (await connection.execute(_INSERT, values)).fetchone()
        assert row is not None
        return row, False

    async def read(self, key_id: UUID, job_id: UUID) -> dict[str, Any]:
        """Return a job.

        Raises:
            NotFound: It is not this key's, or not there.
        """
        async with database_errors(), self._pool.connection() as connection:
            return await _read(connection, key_id, job_id)

    async def page(
        self, key_id: UUID, *, status: JobStatus | None, cursor: int | None, limit: int
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Return jobs, newest first, and the cursor of the next page if there is one."""
        values = {"key": key_id, "status": status, "cursor": cursor, "limit": limit + 1}
        async with database_errors(), self._pool.connection() as connection:
            rows = await (await connection.execute(_PAGE, values)).fetchall()
        return rows[:limit], rows[limit - 1]["number"] if len(rows) > limit else None

    async def cancel(self, key_id: UUID, job_id: UUID) -> tuple[dict[str, Any], bool]:
        """Cancel a job and return it, and whether it was not over: at once where it waits.

        The process that runs it is told, and at the latest sees it when it renews its lease.

        Raises:
            NotFound: It is not this key's, or not there.
        """
        values = {"id": job_id, "key": key_id}
        async with database_errors(), self._pool.connection() as connection:
            changed = await (await connection.execute(_CANCEL, values)).fetchone()
            return await _read(connection, key_id, job_id), changed is not None

    async def delete(self, key_id: UUID, job_id: UUID) -> None:
        """Delete a job that is over, its result and what is left to deliver of it.

        Raises:
            NotFound: It is not this key's, or not there.
            JobUnderWay: It is not over.
        """
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM app.jobs WHERE id = %s AND key_id = %s AND status = ANY(%s)",
                (job_id, key_id, list(ENDED)),
            )
            if cursor.rowcount == 0:
                await _read(connection, key_id, job_id)
                raise JobUnderWay("the job is not over; cancel it first")


async def _read(connection: AsyncConnection[DictRow], key_id: UUID, job_id: UUID) -> dict[str, Any]:
    row = await (await connection.execute(_ONE, {"id": job_id, "key": key_id})).fetchone()
    if row is None:
        raise NotFound("no such job")
    return row


async def _find_repeat(
    connection: AsyncConnection[DictRow], wanted: Submission
) -> dict[str, Any] | None:
    if wanted.idempotency_key is None:
        return None
    cursor = await connection.execute(
        "SELECT * FROM app.jobs WHERE key_id = %s AND idempotency_key = %s",
        (wanted.key_id, wanted.idempotency_key),
    )
    row = await cursor.fetchone()
    if row is not None and row["request_sha256"] != wanted.digest():
        raise IdempotencyMismatch("this Idempotency-Key was used for another request")
    return row


async def _check_room(
    connection: AsyncConnection[DictRow], wanted: Submission, most_queued: int
) -> None:
    cursor = await connection.execute(
        "SELECT (SELECT key_id FROM app.threads WHERE id = %(thread)s) AS thread_key,"
        " (SELECT count(*) FROM app.jobs WHERE key_id = %(key)s"
        " AND status IN ('queued', 'waiting')) AS queued",
        {"thread": wanted.thread_id, "key": wanted.key_id},
    )
    row = await cursor.fetchone()
    assert row is not None
    if row["thread_key"] not in (None, wanted.key_id):
        raise NotFound("no such thread")
    if most_queued and row["queued"] >= most_queued:
        raise RateLimited(
            f"this key has {most_queued} jobs waiting, which is its limit",
            headers={"Retry-After": str(FULL_RETRY_SECONDS)},
        )


def list_jobs(
    connection: psycopg.Connection, *, status: str | None, limit: int
) -> list[dict[str, Any]]:
    """Return the newest jobs of all keys, for the operator."""
    values = {"key": None, "status": status, "cursor": None, "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_PAGE, values).fetchall()


def show_job(connection: psycopg.Connection, job_id: UUID) -> dict[str, Any]:
    """Return a job of any key.

    Raises:
        NotFound: There is none of that id.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_ONE, {"id": job_id, "key": None}).fetchone()
    if row is None:
        raise NotFound("no such job", place=str(job_id), cure="agent-app jobs list")
    return row


def cancel_job(connection: psycopg.Connection, job_id: UUID) -> dict[str, Any]:
    """Cancel a job of any key and return it.

    Raises:
        NotFound: There is none of that id.
    """
    connection.execute(_CANCEL, {"id": job_id, "key": None})
    return show_job(connection, job_id)
