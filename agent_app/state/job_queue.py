"""The jobs as workers see them: claimed fairly, leased, ended, put back.

Whose turn it is. Start-time fair queuing on tokens: a key's jobs carry the tokens it was served so
far, and the key that was served least is next. The clock of it is the highest tag of a start. A key
with no jobs is forgotten once it was served less than that, and begins there when it comes back: it
has no credit from an idle day, and one that was greedy pays no longer than others wait. Round-robin
by starts would be simpler, but lets a key with jobs a hundred times as long have a hundred times as
much.
A start costs something at once (`START_TOKENS`), put right when its tokens are known; else several
starts in a row would all go to the same key. Until then others may pass it, so a key with jobs
keeps what it was served, also behind the clock, and makes up for the turns it missed.

Claims are made one at a time, under an advisory lock: the order is then exact, and so is the bound
of running jobs per key, which no lock on rows could hold. A claim takes about 2 ms.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from agent_app.agent.conversation import Message
from agent_app.state.bell import CHANNEL, Work
from agent_app.state.database import Pool, database_errors
from agent_app.state.jobs import QUEUE_WEBHOOKS, JobStatus

CLAIM_LOCK = 0x4A6F6273  # "Jobs"; any constant that nothing else in this database uses
CLAIM_SECONDS = 5  # a process that stalls in mid-claim loses the lock after so long
START_TOKENS = 1000

_IS_DUE = """
SELECT EXISTS (
    SELECT FROM app.jobs WHERE status IN ('queued', 'waiting') AND next_at <= clock_timestamp()
) AS due
"""
_LOCK = f"""
SELECT set_config('idle_in_transaction_session_timeout', '{CLAIM_SECONDS}s', true),
    pg_advisory_xact_lock({CLAIM_LOCK})
"""
# Jobs of one thread go one after another, in the order they were submitted.
_CLAIM = """
WITH clock AS (
    SELECT coalesce(max(tag), 0) AS tag FROM app.job_shares
), idle AS (
    DELETE FROM app.job_shares AS share USING clock
    WHERE share.served < clock.tag AND NOT EXISTS (
        SELECT FROM app.jobs
        WHERE jobs.key_id = share.key_id AND status IN ('queued', 'waiting', 'running')
    )
), due AS (
    SELECT id, key_id, number FROM app.jobs AS job
    WHERE status IN ('queued', 'waiting') AND next_at <= clock_timestamp()
        AND NOT EXISTS (
            SELECT FROM app.jobs AS other
            WHERE other.thread_id = job.thread_id AND other.number < job.number
                AND other.status IN ('queued', 'waiting', 'running')
        )
), turn AS (
    SELECT key_id, coalesce(share.served, clock.tag) AS tag
    FROM clock, (SELECT DISTINCT key_id FROM due) AS waiting
    LEFT JOIN app.job_shares AS share USING (key_id)
    WHERE (
        SELECT count(*) FROM app.jobs AS mine
        WHERE mine.key_id = waiting.key_id AND mine.status = 'running'
    ) < %(per_key)s
    ORDER BY 2, share.started_at NULLS FIRST
    LIMIT 1
), job AS (
    SELECT id FROM app.jobs
    WHERE id IN (SELECT due.id FROM due JOIN turn USING (key_id))
        AND status IN ('queued', 'waiting')
    ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED
), charged AS (
    INSERT INTO app.job_shares (key_id, tag, served, started_at)
    SELECT key_id, tag, tag + %(charge)s, clock_timestamp()
    FROM turn WHERE EXISTS (SELECT FROM job)
    ON CONFLICT (key_id) DO UPDATE SET
        tag = excluded.tag, served = excluded.served, started_at = excluded.started_at
)
UPDATE app.jobs SET
    status = 'running',
    attempt = attempt + 1,
    owner = %(owner)s,
    lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
    attempt_started_at = clock_timestamp(),
    started_at = coalesce(started_at, clock_timestamp()),
    error = NULL
WHERE id = (SELECT id FROM job) AND status IN ('queued', 'waiting')
RETURNING *, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_seconds
"""
_RENEW = """
UPDATE app.jobs SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[]) AS held (id, attempt)
WHERE jobs.id = held.id AND jobs.attempt = held.attempt
    AND owner = %(owner)s AND status = 'running'
RETURNING jobs.id, cancel_requested
"""
# What the attempt took, from the clock or, where its process died, from its last sign of life.
_RAN = """
run_seconds = run_seconds + greatest(0, extract(epoch FROM
    least(lease_until, clock_timestamp()) - attempt_started_at))
"""
_MINE = """
id = %(id)s AND attempt = %(attempt)s AND status = 'running'
    AND (NOT %(expired)s OR lease_until <= clock_timestamp())
"""
_LET_GO = f"""
WITH before AS (
    SELECT id AS job_id, prompt_tokens + completion_tokens AS counted FROM app.jobs
    WHERE id = %(id)s
), spent AS (
    SELECT coalesce(max(prompt_tokens), 0) AS prompt, coalesce(max(completion_tokens), 0) AS answer
    FROM app.runs WHERE id = %(id)s
), ended AS (
    UPDATE app.jobs SET
        status = %(status)s,
        result = %(result)s,
        error = %(error)s,
        owner = NULL,
        lease_until = NULL,
        strikes = strikes + %(strike)s,
        next_at = clock_timestamp() + make_interval(secs => %(pause)s),
        finished_at = CASE WHEN %(over)s THEN clock_timestamp() END,
        prompt_tokens = spent.prompt,
        completion_tokens = spent.answer,
        {_RAN}
    FROM spent
    WHERE {_MINE} AND (%(over)s OR NOT cancel_requested)
    RETURNING jobs.*
), share AS (
    UPDATE app.job_shares AS share
    SET served = served + ended.prompt_tokens + ended.completion_tokens - counted - %(charge)s
    FROM ended, before WHERE share.key_id = ended.key_id
), {QUEUE_WEBHOOKS}
SELECT ended.*, pg_notify('{CHANNEL}', '{Work.JOBS}'), pg_notify('{CHANNEL}', '{Work.WEBHOOKS}')
FROM ended
"""  # noqa: S608 - constants of ours
_EXPIRED = """
SELECT *, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_seconds
FROM app.jobs WHERE status = 'running' AND lease_until <= clock_timestamp()
"""
_COUNTS = """
SELECT status, count(*) AS jobs,
    coalesce(max(extract(epoch FROM clock_timestamp() - next_at)), 0)::float8 AS oldest_seconds
FROM app.jobs WHERE status IN ('queued', 'waiting', 'running') GROUP BY status
"""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that is ours to work on. Its run on the thread has the job's id."""

    id: UUID
    attempt: int
    key_id: UUID
    thread_id: UUID
    model: str
    feature: str
    correlation: str
    message: str
    history: tuple[Message, ...]
    strikes: int
    """How many attempts ended by a dead process or a failing engine."""
    run_seconds: float
    age_seconds: float
    cancel_requested: bool
    created_at: datetime
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is over."""

    status: JobStatus
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PutOff:
    """A job is tried again after some seconds.

    Args:
        strike: Whether that counts towards giving it up.
        error: Why, for whoever looks meanwhile.
    """

    seconds: float
    strike: bool
    error: dict[str, Any]


class JobQueue:
    """The table `app.jobs` for the workers of one process.

    Args:
        pool: Connections.
        owner: Names this process among all that share the database; the same after a restart.
        lease_seconds: How long a claim lasts unless renewed.
    """

    def __init__(self, pool: Pool, *, owner: str, lease_seconds: float) -> None:
        self._pool = pool
        self._owner = owner
        self._lease = lease_seconds

    async def release_own(self) -> int:
        """End the leases that an earlier life of this process left behind."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "UPDATE app.jobs SET lease_until = least(lease_until, clock_timestamp())"
                " WHERE owner = %s AND status = 'running'",
                (self._owner,),
            )
            return cursor.rowcount

    async def claim(self, *, per_key: int) -> ClaimedJob | None:
        """Take the job whose turn it is, or None."""
        values = {
            "per_key": per_key,
            "owner": self._owner,
            "lease": self._lease,
            "charge": START_TOKENS,
        }
        async with database_errors(), self._pool.connection() as connection:
            due = await (await connection.execute(_IS_DUE)).fetchone()
            if due is None or not due["due"]:
                return None
            async with connection.transaction():
                await connection.execute(_LOCK)
                row = await (await connection.execute(_CLAIM, values)).fetchone()
        return _claimed(row) if row else None

    async def renew(self, held: list[tuple[UUID, int]]) -> dict[UUID, bool]:
        """Renew leases; return the jobs that are still ours, and whether each shall be cancelled.

        Args:
            held: Jobs and the attempts that are ours.
        """
        values = {
            "ids": [job_id for job_id, _ in held],
            "attempts": [attempt for _, attempt in held],
            "owner": self._owner,
            "lease": self._lease,
        }
        async with database_errors(), self._pool.connection() as connection:
            rows = await (await connection.execute(_RENEW, values)).fetchall()
        return {row["id"]: row["cancel_requested"] for row in rows}

    async def let_go(
        self, job: ClaimedJob, outcome: Ended | PutOff, *, expired: bool = False
    ) -> bool:
        """Write down what became of an attempt; with its end go the job's webhook and its bill.

        Args:
            job: The job.
            outcome: The end, or when to try again; a job to be cancelled is not put off.
            expired: The attempt is another process's, and only over if its lease is.

        Returns:
            Whether it was so: the attempt was still under way.
        """
        if isinstance(outcome, Ended):
            status, result = outcome.status, outcome.result
            strike, pause = False, 0.0
        else:
            status = JobStatus.WAITING if outcome.seconds else JobStatus.QUEUED
            result, strike, pause = None, outcome.strike, outcome.seconds
        values = {
            "id": job.id,
            "attempt": job.attempt,
            "expired": expired,
            "status": status,
            "over": isinstance(outcome, Ended),
            "result": Jsonb(result) if result is not None else None,
            "error": Jsonb(outcome.error) if outcome.error is not None else None,
            "strike": int(strike),
            "pause": pause,
            "charge": START_TOKENS,
        }
        async with database_errors(), self._pool.connection() as connection:
            return await (await connection.execute(_LET_GO, values)).fetchone() is not None

    async def expired(self) -> list[ClaimedJob]:
        """Return running jobs whose process gave no sign in time."""
        async with database_errors(), self._pool.connection() as connection:
            rows = await (await connection.execute(_EXPIRED)).fetchall()
        return [_claimed(row) for row in rows]

    async def run_status(self, job_id: UUID) -> str | None:
        """Return the status of a job's run, None if it never began."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT status FROM app.runs WHERE id = %s", (job_id,)
            )
            row = await cursor.fetchone()
        return str(row["status"]) if row else None

    async def counts(self) -> dict[str, tuple[int, float]]:
        """Return, by status, how many jobs are not over and since when the oldest is due."""
        async with database_errors(), self._pool.connection() as connection:
            rows = await (await connection.execute(_COUNTS)).fetchall()
        return {row["status"]: (row["jobs"], row["oldest_seconds"]) for row in rows}


def _claimed(row: dict[str, Any]) -> ClaimedJob:
    return ClaimedJob(
        id=row["id"],
        attempt=row["attempt"],
        key_id=row["key_id"],
        thread_id=row["thread_id"],
        model=row["model"],
        feature=row["feature"],
        correlation=row["correlation_id"],
        message=row["message"],
        history=tuple(row["history"]),
        strikes=row["strikes"],
        run_seconds=row["run_seconds"],
        age_seconds=row["age_seconds"],
        cancel_requested=row["cancel_requested"],
        created_at=row["created_at"],
        started_at=row["started_at"],
    )
