"""Requests to approve a tool call, and what a person decided.

A table of our own and not LangGraph's `interrupt`: a decision can then come at any time and from
any process, a malformed one cannot poison the thread's checkpoint, it is stored once and for all,
and whoever lists what waits needs no checkpoint. The graph only ever looks here.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from agent_app.errors import AlreadyDecided, NotFound
from agent_app.state.database import Pool, database_errors

Decision = Literal["approve", "deny"]
ApprovalStatus = Literal["pending", "approved", "denied", "expired", "void"]


@dataclass(frozen=True, slots=True)
class Request:
    """A call that waits for a person, or did."""

    run_id: UUID
    call_id: str
    thread_id: UUID
    tool: str
    arguments: str
    """Canonical JSON, exactly what runs."""
    digest: str
    """Of tool, its schema as the model knew it, and arguments: what was approved is what runs."""
    requested_at: datetime
    expires_at: datetime
    status: ApprovalStatus
    note: str
    decided_at: datetime | None


_STATUS = """
CASE WHEN ask.decision = 'approve' THEN 'approved'
    WHEN ask.decision = 'deny' THEN 'denied'
    WHEN ask.expires_at <= now() THEN 'expired'
    WHEN run.status NOT IN ('running', 'interrupted', 'waiting') THEN 'void'
    ELSE 'pending' END
"""
# Status as of now; a request is void when its run was abandoned or ended otherwise.
_SELECT = (
    "SELECT ask.*, "  # noqa: S608 - constants
    + _STATUS
    + " AS status FROM app.approvals AS ask JOIN app.runs AS run ON run.id = ask.run_id "
)
_PENDING = (
    f"{_SELECT} WHERE ask.decision IS NULL AND 'pending' = {_STATUS}"
    " ORDER BY ask.requested_at LIMIT %s"
)
_DECIDE = (
    """
UPDATE app.approvals AS ask
SET decision = %(decision)s, note = %(note)s, decided_by = %(key)s, decided_at = now()
FROM app.runs AS run
WHERE run.id = ask.run_id AND ask.run_id = %(run)s AND ask.call_id = %(call)s
    AND 'pending' = """
    + _STATUS
)
_MOST_LISTED = 200


class Approvals:
    """The table `app.approvals`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def ask(
        self,
        run_id: UUID,
        call_id: str,
        thread_id: UUID,
        *,
        tool: str,
        arguments: str,
        digest: str,
        expire_seconds: float,
    ) -> tuple[Request, bool]:
        """Return the request for a call, and whether it is new; asked again it is the same one."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "INSERT INTO app.approvals"
                " (run_id, call_id, thread_id, tool, arguments, digest, expires_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, now() + make_interval(secs => %s))"
                " ON CONFLICT DO NOTHING",
                (run_id, call_id, thread_id, tool, arguments, digest, expire_seconds),
            )
            new = cursor.rowcount == 1
            cursor = await connection.execute(
                _SELECT + "WHERE ask.run_id = %s AND ask.call_id = %s", (run_id, call_id)
            )
            row = await cursor.fetchone()
        if row is None:  # the thread was deleted meanwhile
            raise NotFound("no such thread")
        return _request(row), new

    async def of_thread(self, thread_id: UUID, *, key_id: UUID | None) -> list[Request]:
        """Return a thread's newest 200 requests, oldest first.

        Args:
            thread_id: The thread.
            key_id: Whose it must be; None for one who may decide for all.

        Raises:
            NotFound: The thread is not there, or another key's.
        """
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT FROM app.threads WHERE id = %s AND (%s::uuid IS NULL OR key_id = %s)",
                (thread_id, key_id, key_id),
            )
            if cursor.rowcount == 0:
                raise NotFound("no such thread")
            cursor = await connection.execute(
                _SELECT + "WHERE ask.thread_id = %s ORDER BY ask.requested_at DESC, ask.call_id"
                " LIMIT %s",
                (thread_id, _MOST_LISTED),
            )
            return [_request(row) for row in reversed(await cursor.fetchall())]

    async def pending(self) -> list[Request]:
        """Return what waits for a person in all threads, oldest first, 200 at most."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                _SELECT
                + "WHERE ask.decision IS NULL AND 'pending' = "
                + _STATUS
                + " ORDER BY ask.requested_at LIMIT %s",
                (_MOST_LISTED,),
            )
            return [_request(row) for row in await cursor.fetchall()]

    async def decide(
        self, asked: Request, decision: Decision, *, by: UUID, note: str
    ) -> tuple[Request, bool]:
        """Store a decision, once; return the request, and whether this call decided it.

        Raises:
            AlreadyDecided: Another decision stands, or it is too late for any.
            NotFound: It was deleted meanwhile.
        """
        values = {
            "run": asked.run_id,
            "call": asked.call_id,
            "decision": decision,
            "note": note,
            "key": by,
        }
        async with database_errors(), self._pool.connection() as connection:
            new = (await connection.execute(_DECIDE, values)).rowcount == 1
            cursor = await connection.execute(
                _SELECT + "WHERE ask.run_id = %(run)s AND ask.call_id = %(call)s", values
            )
            row = await cursor.fetchone()
        if row is None:
            raise NotFound("no such request")
        found = _request(row)
        if row["decision"] != decision:
            raise AlreadyDecided(f"the call is {found.status} already")
        return found, new


def _request(row: dict[str, Any]) -> Request:
    return Request(**{name: row[name] for name in Request.__slots__})
