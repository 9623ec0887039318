"""Tickets; the webhook of each goes into the outbox with it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from agent_app.state.bell import CHANNEL, Work
from agent_app.state.database import Pool, database_errors

# One statement: the ticket and its delivery are there together or not at all.
_CREATE = f"""
WITH made AS (
    INSERT INTO app.tickets (run_id, tool_call_id, thread_id, key_id, title, body, priority)
    VALUES (%(run)s, %(call)s, %(thread)s, %(key)s, %(title)s, %(body)s, %(priority)s)
    ON CONFLICT (run_id, tool_call_id) DO NOTHING
    RETURNING id, title, body, priority, thread_id, created_at
), queued AS (
    INSERT INTO app.webhooks (kind, ticket_id, body)
    SELECT 'ticket.created', id,
        jsonb_build_object('type', 'ticket.created', 'ticket', to_jsonb(made))::text
    FROM made WHERE %(webhook)s
    RETURNING pg_notify('{CHANNEL}', '{Work.WEBHOOKS}')
)
SELECT id FROM made
UNION ALL SELECT id FROM app.tickets WHERE run_id = %(run)s AND tool_call_id = %(call)s
"""  # noqa: S608 - constants of ours


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the model wants written down."""

    title: str
    body: str
    priority: str


class Tickets:
    """The table `app.tickets`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(
        self,
        ticket: Ticket,
        *,
        run_id: UUID,
        call_id: str,
        thread_id: UUID | None,
        webhook: bool,
        key_id: UUID | None = None,
    ) -> int:
        """Return the ticket's number; a second time for the same call it is the same one."""
        values = {
            "run": run_id,
            "call": call_id,
            "thread": thread_id,
            "key": key_id,
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


def list_tickets(connection: psycopg.Connection, *, limit: int) -> list[dict[str, Any]]:
    """Return the newest tickets, and how their webhook fares."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT t.id, t.title, t.body, t.priority, t.thread_id::text AS thread_id,"
            " t.created_at::text AS created_at,"
            " CASE WHEN o.id IS NULL THEN 'none' WHEN o.delivered_at IS NOT NULL THEN 'delivered'"
            " WHEN o.given_up_at IS NOT NULL THEN 'given up' ELSE 'pending' END AS webhook"
            " FROM app.tickets t LEFT JOIN app.webhooks o ON o.ticket_id = t.id"
            " ORDER BY t.id DESC LIMIT %s",
            (limit,),
        ).fetchall()
