"""Threads and runs: who works on a thread, and what became of it.

A run's status is kept here and nowhere else. The process that works on a run renews its lease; a
run whose lease ran out was interrupted, and the next request for its thread takes it up again.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from agent_app.agent.events import Usage
from agent_app.errors import NotFound, NothingToResume, ThreadBusy
from agent_app.state.database import Pool, database_errors
from agent_app.state.usage import ADD_UP, Spent

STOP_REQUESTED = "stop requested"  # in `error` of a running run: its process looks at each renewal


class Status(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Stopped on the way: crash, shutdown, client gone, engine gone. Can be resumed."""
    DONE = "done"
    FAILED = "failed"
    """Stopped for a reason that would stop it again, such as a bound."""
    ABANDONED = "abandoned"
    """Interrupted, and then the client asked for something else."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants of a thread.

    `message` None means: go on with what was interrupted.
    """

    thread_id: UUID
    key_id: UUID
    message: str | None
    model: str
    correlation: str
    new_thread: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that is ours to work on, or one that is done and only to be told again."""

    run_id: UUID
    attempt: int
    model: str
    message: str
    session_tokens: int
    resumed: bool
    after_unfinished: bool
    """The thread's run before this one did not end well, so calls may be open."""
    replay: Usage | None = None
    """The run is done already: its usage."""


class Runs:
    """The tables `app.threads` and `app.runs`.

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
        """Mark as interrupted what an earlier life of this process left behind."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "UPDATE app.runs SET status = 'interrupted', error = 'process died'"
                " WHERE owner = %s AND status = 'running'",
                (self._owner,),
            )
            return cursor.rowcount

    async def claim(self, asked: Asked) -> Claim:
        """Claim the run that answers this request: a new one, or the interrupted one.

        Raises:
            NotFound: The thread is not this key's, or not there.
            ThreadBusy: Another request works on the thread.
            NothingToResume: There is no interrupted run.
        """
        async with (
            database_errors(),
            self._pool.connection() as connection,
            connection.transaction(),
        ):
            tokens = await self._lock_thread(connection, asked)
            last = await self._last_run(connection, asked.thread_id)
            if last is not None and last["alive"]:
                raise ThreadBusy("the thread is busy with another request")
            unfinished = last is not None and last["status"] in (
                Status.RUNNING,
                Status.INTERRUPTED,
            )
            if last is not None and unfinished and asked.message in (None, last["message"]):
                return await self._take_up(connection, last, tokens, asked.correlation)
            if asked.message is None:
                return _told_again(last, tokens)
            if last is not None and unfinished:
                await self._abandon(connection, last["id"])
            after_unfinished = last is not None and last["status"] != Status.DONE
            return await self._begin(connection, asked, asked.message, tokens, after_unfinished)

    async def _lock_thread(self, connection: AsyncConnection[DictRow], asked: Asked) -> int:
        if asked.new_thread:
            await connection.execute(
                "INSERT INTO app.threads (id, key_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (asked.thread_id, asked.key_id),
            )
        cursor = await connection.execute(
            "SELECT tokens FROM app.threads WHERE id = %s AND key_id = %s FOR UPDATE",
            (asked.thread_id, asked.key_id),
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFound("no such thread")
        return int(row["tokens"])

    async def _last_run(
        self, connection: AsyncConnection[DictRow], thread_id: UUID
    ) -> DictRow | None:
        cursor = await connection.execute(
            "SELECT *, status = 'running' AND lease_until > now() AS alive"
            " FROM app.runs WHERE thread_id = %s ORDER BY number DESC LIMIT 1",
            (thread_id,),
        )
        return await cursor.fetchone()

    async def _take_up(
        self, connection: AsyncConnection[DictRow], last: DictRow, tokens: int, correlation: str
    ) -> Claim:
        attempt = last["attempt"] + 1
        await connection.execute(
            "UPDATE app.runs SET status = 'running', owner = %s, attempt = %s, error = NULL,"
            " correlation_id = %s, lease_until = now() + make_interval(secs => %s) WHERE id = %s",
            (self._owner, attempt, correlation, self._lease, last["id"]),
        )
        return Claim(last["id"], attempt, last["model"], last["message"], tokens, True, False)

    async def _abandon(self, connection: AsyncConnection[DictRow], run_id: UUID) -> None:
        await connection.execute(
            "UPDATE app.runs SET status = 'abandoned', finished_at = now() WHERE id = %s",
            (run_id,),
        )

    async def _begin(
        self,
        connection: AsyncConnection[DictRow],
        asked: Asked,
        message: str,
        tokens: int,
        after_unfinished: bool,
    ) -> Claim:
        run_id = uuid4()
        await connection.execute(
            "INSERT INTO app.runs"
            " (id, thread_id, correlation_id, model, message, status, owner, lease_until)"
            " VALUES (%s, %s, %s, %s, %s, 'running', %s, now() + make_interval(secs => %s))",
            (
                run_id,
                asked.thread_id,
                asked.correlation,
                asked.model,
                message,
                self._owner,
                self._lease,
            ),
        )
        return Claim(run_id, 1, asked.model, message, tokens, False, after_unfinished)

    async def renew(self, run_ids: list[UUID]) -> dict[UUID, bool]:
        """Renew our leases; return the runs that are still ours, and whether each shall stop."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "UPDATE app.runs SET lease_until = now() + make_interval(secs => %s)"
                " WHERE id = ANY(%s) AND owner = %s AND status = 'running'"
                " RETURNING id, error IS NOT DISTINCT FROM %s AS stop",
                (self._lease, run_ids, self._owner, STOP_REQUESTED),
            )
            return {row["id"]: row["stop"] for row in await cursor.fetchall()}

    async def request_stop(self, thread_id: UUID, key_id: UUID) -> UUID | None:
        """Ask whichever process works on the thread to stop; return the run, None if there is none.

        The run stays claimed until that process has let go, so nobody else begins meanwhile.

        Raises:
            NotFound: The thread is not this key's, or not there.
        """
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM app.threads WHERE id = %s AND key_id = %s", (thread_id, key_id)
            )
            if await cursor.fetchone() is None:
                raise NotFound("no such thread")
            cursor = await connection.execute(
                "UPDATE app.runs SET error = %s WHERE thread_id = %s AND status = 'running'"
                " AND lease_until > now() RETURNING id",
                (STOP_REQUESTED, thread_id),
            )
            row = await cursor.fetchone()
            return row["id"] if row else None

    async def finish(
        self, run_id: UUID, attempt: int, status: Status, spent: Spent, error: str | None
    ) -> bool:
        """Write down how an attempt ended and what it used; return whether it was still ours."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                _FINISH + ADD_UP,
                {
                    "run": run_id,
                    "attempt": attempt,
                    "owner": self._owner,
                    "status": status,
                    "prompt": spent.usage.prompt_tokens,
                    "completion": spent.usage.completion_tokens,
                    "seconds": spent.engine_seconds,
                    "feature": spent.feature,
                    "error": error,
                },
            )
            return cursor.rowcount == 1


_FINISH = """
WITH before AS (
    SELECT id AS run_id, counted AS was_counted FROM app.runs WHERE id = %(run)s
), run AS (
    UPDATE app.runs SET
        counted = true,
        status = %(status)s,
        error = %(error)s,
        prompt_tokens = prompt_tokens + %(prompt)s,
        completion_tokens = completion_tokens + %(completion)s,
        finished_at = CASE WHEN %(status)s = 'interrupted' THEN NULL ELSE now() END
    FROM before
    WHERE id = run_id AND attempt = %(attempt)s AND owner = %(owner)s AND status = 'running'
    RETURNING thread_id, model, was_counted
), thread AS (
    UPDATE app.threads SET tokens = tokens + %(prompt)s + %(completion)s
    FROM run WHERE id = thread_id
    RETURNING key_id, model, was_counted
)
INSERT INTO app.usage
SELECT key_id, (now() AT TIME ZONE 'UTC')::date, model, %(feature)s,
    CASE WHEN was_counted THEN 0 ELSE 1 END, %(prompt)s, %(completion)s, %(seconds)s
FROM thread
"""


def _told_again(last: dict[str, Any] | None, tokens: int) -> Claim:
    if last is None or last["status"] != Status.DONE:
        raise NothingToResume(
            "the thread has no interrupted run", cure="send a message to begin a new one"
        )
    usage = Usage(last["prompt_tokens"], last["completion_tokens"])
    return Claim(
        last["id"],
        last["attempt"],
        last["model"],
        last["message"],
        tokens,
        True,
        False,
        replay=usage,
    )
