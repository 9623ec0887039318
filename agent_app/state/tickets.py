"""Tickets, and the outbox from which their webhooks are delivered."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from agent_app.state.database import Pool, database_errors

CLAIM_SECONDS = 30
"""A delivery whose process died is taken up again after so long."""
FIRST_RETRY_SECONDS = 2
LONGEST_RETRY_SECONDS = 3600

# One statement: the ticket and its delivery are there together or not at all.
_CREATE = """
WITH made AS (
    INSERT INTO app.tickets (run_id, tool_call_id, thread_id, title, body, priority)
    VALUES (%(run)s, %(call)s, %(thread)s, %(title)s, %(body)s, %(priority)s)
    ON CONFLICT (run_id, tool_call_id) DO NOTHING
    RETURNING id, title, body, priority, thread_id, created_at
), queued AS (
    INSERT INTO app.webhook_outbox (ticket_id, body)
    SELECT id, jsonb_build_object('type', 'ticket.created', 'ticket', to_jsonb(made))::text
    FROM made WHERE %(webhook)s
)
SELECT id FROM made
UNION ALL SELECT id FROM app.tickets WHERE run_id = %(run)s AND tool_call_id = %(call)s
"""
_CLAIM = """
UPDATE app.webhook_outbox
SET attempts = attempts + 1, next_at = now() + make_interval(secs => %s)
WHERE id = (
    SELECT id FROM app.webhook_outbox
    WHERE delivered_at IS NULL AND given_up_at IS NULL AND next_at <= now()
    ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, body, attempts
"""
_FAILED = """
UPDATE app.webhook_outbox
SET last_error = %(why)s,
    given_up_at = CASE WHEN attempts >= %(most)s THEN now() END,
    next_at = now() + make_interval(
        secs => least(%(longest)s, %(first)s * 2 ^ least(attempts - 1, 20)) * (0.8 + random() * 0.4)
    )
WHERE id = %(id)s AND attempts = %(attempts)s AND delivered_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the model wants written down."""

    title: str
    body: str
    priority: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook that is ours to post."""

    id: UUID
    body: str
    attempts: int


class Tickets:
    """The tables `app.tickets` and `app.webhook_outbox`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(
        self, ticket: Ticket, *, run_id: UUID, call_id: str, thread_id: UUID | None, webhook: bool
    ) -> int:
        """Return the ticket's number; a second time for the same call it is the same one."""
        values = {
            "run": run_id,
            "call": call_id,
            "thread": thread_id,
            "title": ticket.title,
            "body": ticket.body,
            "priority": ticket.priority,
            "webhook": webhook,
        }
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(_CREATE, values)
            row = await cursor.fetchone()
            if row is None:  # another process made it while we were at it
                cursor = await connection.execute(_CREATE, values)
                row = await cursor.fetchone()
        assert row is not None
        return int(row["id"])

    async def claim(self) -> Delivery | None:
        """Take the delivery that is due longest, or None."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(_CLAIM, (CLAIM_SECONDS,))
            row = await cursor.fetchone()
        return Delivery(row["id"], row["body"], row["attempts"]) if row else None

    async def delivered(self, delivery: Delivery) -> None:
        """Write down that it arrived."""
        async with database_errors(), self._pool.connection() as connection:
            await connection.execute(
                "UPDATE app.webhook_outbox SET delivered_at = now(), last_error = NULL"
                " WHERE id = %s",
                (delivery.id,),
            )

    async def failed(self, delivery: Delivery, why: str, *, most: int) -> None:
        """Put the next attempt off, or give up after the last."""
        values = {
            "id": delivery.id,
            "attempts": delivery.attempts,
            "why": why,
            "most": most,
            "first": FIRST_RETRY_SECONDS,
            "longest": LONGEST_RETRY_SECONDS,
        }
        async with database_errors(), self._pool.connection() as connection:
            await connection.execute(_FAILED, values)


def list_tickets(connection: psycopg.Connection, *, limit: int) -> list[dict[str, Any]]:
    """Return the newest tickets, and how their webhook fares."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT t.id, t.title, t.body, t.priority, t.thread_id::text AS thread_id,"
            " t.created_at::text AS created_at,"
            " CASE WHEN o.id IS NULL THEN 'none' WHEN o.delivered_at IS NOT NULL THEN 'delivered'"
            " WHEN o.given_up_at IS NOT NULL THEN 'given up' ELSE 'pending' END AS webhook"
            " FROM app.tickets t LEFT JOIN app.webhook_outbox o ON o.ticket_id = t.id"
            " ORDER BY t.id DESC LIMIT %s",
            (limit,),
        ).fetchall()
