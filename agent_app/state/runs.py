"""Threads and runs: who works on a thread, and what became of it.

A run's status is kept here and nowhere else. The process that works on a run renews its lease; a
run whose lease ran out was interrupted, and the next request for its thread takes it up again.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow

from agent_app.agent.events import NO_USAGE, Usage
from agent_app.errors import NotFound, NothingToResume, ThreadBusy
from agent_app.state.database import Pool, database_errors
from agent_app.state.usage import ADD_UP, Spent

# In `error` of a running run: its process looks at each renewal.
STOP_REQUESTED = "stop requested"
RELEASE_REQUESTED = "release requested"


class Status(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Stopped on the way: crash, shutdown, client gone, engine gone. Can be resumed."""
    WAITING = "waiting"
    """Stopped until a person has decided about a tool call. Can be resumed."""
    DONE = "done"
    FAILED = "failed"
    """Stopped for a reason that would stop it again, such as a bound."""
    ABANDONED = "abandoned"
    """Interrupted or waiting, and then the client asked for something else."""


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
    run_id: UUID | None = None
    """Names the run: only that one is gone on with, and a new one gets this name."""
    feature: str = ""
    heard_run: UUID | None = None
    """Go on with this run and no other."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A run of which attempts may have died with their process, before they were counted."""

    run_id: UUID
    thread_id: UUID
    model: str
    feature: str
    counted_attempt: int
    """Up to which attempt usage is counted."""
    last_attempt: int
    """The last that has ended."""


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
    used: Usage = NO_USAGE
    """What earlier attempts used, as far as it is counted."""
    used_seconds: float = 0.0
    unsettled: Unsettled | None = None
    """What must be counted first: earlier attempts, or those of the run this one takes over."""
    resident: bool = False
    """The key's data stays on our hosts, or its key's did when the thread began."""
    first: bool = False
    """The thread had no run before: it has no checkpoint either."""
    unfinished: tuple[UUID, str] | None = None
    """The run before this one and its message, where that run did not end well."""


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

    async def release_own(self) -> list[Unsettled]:
        """Mark as interrupted what an earlier life of this process left behind; return it."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "UPDATE app.runs SET status = 'interrupted', error = 'process died'"
                " WHERE owner = %s AND status = 'running' RETURNING *",
                (self._owner,),
            )
            return [_unsettled(row) for row in await cursor.fetchall()]

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
            connection.pipeline(),  # two round trips in place of six
            connection.transaction(),
        ):
            thread = await self._lock_thread(connection, asked)
            runs = await self._last_run(connection, asked.thread_id)
            row = await thread.fetchone()
            if row is None:
                raise NotFound("no such thread")
            last = await runs.fetchone()
            claim = await self._claim_locked(connection, asked, last, int(row["tokens"]))
        return replace(claim, resident=bool(row["resident"]))

    async def _claim_locked(
        self,
        connection: AsyncConnection[DictRow],
        asked: Asked,
        last: DictRow | None,
        tokens: int,
    ) -> Claim:
        if asked.heard_run is not None and (last is None or last["id"] != asked.heard_run):
            raise NothingToResume(
                "the thread has gone on since that event", cure="read the thread anew"
            )
        if last is not None and last["alive"]:
            raise ThreadBusy("the thread is busy with another request")
        unfinished = last is not None and last["status"] in (
            Status.RUNNING,
            Status.INTERRUPTED,
            Status.WAITING,
        )
        ours = last is not None and asked.run_id in (None, last["id"])
        same = last is not None and asked.message in (None, last["message"])
        if last is not None and unfinished and ours and same:
            return await self._take_up(connection, last, tokens, asked)
        if asked.message is None:
            return _told_again(last if ours else None, tokens)
        if last is not None and unfinished:
            await self._abandon(connection, last["id"])
        after_unfinished = last is not None and last["status"] != Status.DONE
        claim = await self._begin(connection, asked, asked.message, tokens)
        return replace(
            claim,
            first=last is None,
            after_unfinished=after_unfinished,
            unfinished=(last["id"], last["message"]) if last and after_unfinished else None,
            unsettled=_unsettled(last) if last is not None and after_unfinished else None,
        )

    async def _lock_thread(
        self, connection: AsyncConnection[DictRow], asked: Asked
    ) -> AsyncCursor[DictRow]:
        if asked.new_thread:
            await connection.execute(
                "INSERT INTO app.threads (id, key_id, resident)"
                " SELECT %s, id, resident FROM app.api_keys WHERE id = %s ON CONFLICT DO NOTHING",
                (asked.thread_id, asked.key_id),
            )
        return await connection.execute(
            "SELECT tokens, threads.resident OR api_keys.resident AS resident"
            " FROM app.threads JOIN app.api_keys ON api_keys.id = key_id"
            " WHERE threads.id = %s AND key_id = %s FOR UPDATE OF threads",
            (asked.thread_id, asked.key_id),
        )

    async def _last_run(
        self, connection: AsyncConnection[DictRow], thread_id: UUID
    ) -> AsyncCursor[DictRow]:
        return await connection.execute(
            "SELECT *, status = 'running' AND lease_until > now() AS alive"
            " FROM app.runs WHERE thread_id = %s ORDER BY number DESC LIMIT 1",
            (thread_id,),
        )

    async def _take_up(
        self, connection: AsyncConnection[DictRow], last: DictRow, tokens: int, asked: Asked
    ) -> Claim:
        attempt = last["attempt"] + 1
        await connection.execute(
            "UPDATE app.runs SET status = 'running', owner = %s, attempt = %s, error = NULL,"
            " feature = %s, correlation_id = %s, lease_until = now() + make_interval(secs => %s)"
            " WHERE id = %s",
            (self._owner, attempt, asked.feature, asked.correlation, self._lease, last["id"]),
        )
        return Claim(
            last["id"],
            attempt,
            last["model"],
            last["message"],
            tokens,
            True,
            False,
            used=Usage(last["prompt_tokens"], last["completion_tokens"]),
            used_seconds=last["engine_seconds"],
            unsettled=_unsettled(last),
        )

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
    ) -> Claim:
        run_id = asked.run_id or uuid4()
        await connection.execute(
            "INSERT INTO app.runs"
            " (id, thread_id, correlation_id, model, message, feature, status, owner, lease_until)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'running', %s, now() + make_interval(secs => %s))",
            (
                run_id,
                asked.thread_id,
                asked.correlation,
                asked.model,
                message,
                asked.feature,
                self._owner,
                self._lease,
            ),
        )
        return Claim(run_id, 1, asked.model, message, tokens, False, False)

    async def renew(self, run_ids: list[UUID]) -> dict[UUID, str | None]:
        """Renew our leases; return the runs that are still ours, and what is requested of each."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "UPDATE app.runs SET lease_until = now() + make_interval(secs => %s)"
                " WHERE id = ANY(%s) AND owner = %s AND status = 'running'"
                " RETURNING id, error",
                (self._lease, run_ids, self._owner),
            )
            return {row["id"]: row["error"] for row in await cursor.fetchall()}

    async def request_stop(
        self, thread_id: UUID, key_id: UUID, *, what: str = STOP_REQUESTED
    ) -> UUID | None:
        """Ask whichever process works on the thread to stop; return the run, None if there is none.

        The run stays claimed until that process has let go, so nobody else begins meanwhile.

        Args:
            thread_id: The thread.
            key_id: Whose it must be.
            what: For good, or RELEASE_REQUESTED: its client came back elsewhere.

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
                (what, thread_id),
            )
            row = await cursor.fetchone()
            return row["id"] if row else None

    async def finish(
        self, run_id: UUID, attempt: int, status: Status, spent: Spent, error: str | None
    ) -> bool:
        """Write down how an attempt ended and what it used; return whether it was still ours."""
        values = {
            "run": run_id,
            "attempt": attempt,
            "owner": self._owner,
            "status": status,
            "feature": spent.feature,
            "error": error,
        }
        return await self._count(_FINISH, spent, values)

    async def settle(self, run: Unsettled, spent: Spent) -> bool:
        """Count the steps of attempts that died; return whether nobody else has meanwhile."""
        values = {
            "run": run.run_id,
            "attempt": run.last_attempt,
            "status": "recovered",
            "feature": spent.feature,
        }
        return await self._count(_SETTLE, spent, values)

    async def _count(self, statement: str, spent: Spent, values: dict[str, Any]) -> bool:
        values |= {
            "prompt": spent.usage.prompt_tokens,
            "completion": spent.usage.completion_tokens,
            "prompt_here": spent.here.prompt_tokens,
            "completion_here": spent.here.completion_tokens,
            "seconds": spent.engine_seconds,
        }
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(statement + _ADD_TO_USAGE + ADD_UP, values)
            return cursor.rowcount == 1


# The thread is locked before its run, as claims do: else two such could wait for each other.
_COUNT = """
WITH before AS (
    SELECT runs.id AS run_id, runs.counted AS was_counted
    FROM app.threads JOIN app.runs ON runs.thread_id = threads.id
    WHERE runs.id = %(run)s
    FOR UPDATE OF threads, runs
), run AS (
    UPDATE app.runs SET
        counted = true,
        counted_attempt = %(attempt)s,
        prompt_tokens = prompt_tokens + %(prompt)s,
        completion_tokens = completion_tokens + %(completion)s,
        engine_seconds = engine_seconds + %(seconds)s
"""
_FINISH = (
    _COUNT
    + """,
        status = %(status)s,
        error = %(error)s,
        finished_at = CASE WHEN %(status)s IN ('interrupted', 'waiting') THEN NULL ELSE now() END
    FROM before
    WHERE id = run_id AND attempt = %(attempt)s AND owner = %(owner)s AND status = 'running'
"""
)
_SETTLE = (
    _COUNT
    + """
    FROM before WHERE id = run_id AND counted_attempt < %(attempt)s
"""
)
_ADD_TO_USAGE = """
    RETURNING thread_id, model, was_counted, correlation_id
), thread AS (
    UPDATE app.threads SET tokens = tokens + %(prompt)s + %(completion)s
    FROM run WHERE id = thread_id
    RETURNING key_id, thread_id, model, was_counted, correlation_id
), audited AS (
    INSERT INTO app.audit_outbox (kind, key_id, thread_id, run_id, correlation, details)
    SELECT CASE %(status)s WHEN 'recovered' THEN 'run.recover' ELSE 'run.end' END,
        key_id, thread_id, %(run)s, correlation_id, jsonb_build_object(
        'status', %(status)s::text, 'attempt', %(attempt)s::int, 'model', model,
        'feature', %(feature)s::text,
        'prompt_tokens', %(prompt)s::bigint, 'completion_tokens', %(completion)s::bigint)::text
    FROM thread
)
INSERT INTO app.usage
SELECT key_id, (now() AT TIME ZONE 'UTC')::date, model, %(feature)s,
    CASE WHEN was_counted THEN 0 ELSE 1 END, %(prompt_here)s, %(completion_here)s, %(seconds)s
FROM thread
"""


def _unsettled(row: dict[str, Any]) -> Unsettled:
    return Unsettled(
        row["id"],
        row["thread_id"],
        row["model"],
        row["feature"],
        row["counted_attempt"],
        row["attempt"],
    )


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
