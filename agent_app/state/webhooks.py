"""The outbox of webhooks: what tickets and jobs have to tell, until it was told.

A delivery is written in the statement that makes its ticket or ends its job. It is posted at least
once, under the same id each time; while a receiver fails, all that is meant for its URL waits, so
that deliveries to others go on.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from agent_app.errors import InvalidRequest, NotFound
from agent_app.state.bell import CHANNEL, Work
from agent_app.state.database import Pool, database_errors

CLAIM_SECONDS = 30
"""A delivery whose process died is taken up again after so long, by another process."""
FIRST_RETRY_SECONDS = 2
LONGEST_RETRY_SECONDS = 3600
LONGEST_PAUSE_SECONDS = 300
"""Of a URL that fails: each of its deliveries waits as long, besides its own retry."""
TICKETS_LANE = "tickets"

_CLAIM = """
UPDATE app.webhooks AS hook SET
    attempts = attempts + 1,
    next_at = clock_timestamp() + make_interval(secs => %(claim)s),
    owner = %(owner)s
WHERE id = (
    SELECT webhook.id FROM app.webhooks AS webhook
    LEFT JOIN app.jobs AS job ON job.id = webhook.job_id
    WHERE delivered_at IS NULL AND given_up_at IS NULL
        AND webhook.next_at <= clock_timestamp()
        AND split_part(kind, '.', 1) = ANY(%(families)s)
        AND NOT coalesce(job.key_id::text, %(tickets)s) = ANY(%(full)s)
        AND NOT EXISTS (
            SELECT FROM app.webhook_receivers AS receiver
            WHERE receiver.receiver = coalesce(webhook.url, '')
                AND receiver.next_at > clock_timestamp()
        )
    ORDER BY webhook.next_at LIMIT 1 FOR UPDATE OF webhook SKIP LOCKED
)
RETURNING id, kind, url, body, attempts,
    (SELECT key_id FROM app.jobs WHERE jobs.id = hook.job_id) AS key_id
"""
_DELIVERED = """
WITH receiver AS (
    DELETE FROM app.webhook_receivers WHERE receiver = %(receiver)s
)
UPDATE app.webhooks SET delivered_at = clock_timestamp(), last_error = NULL, owner = NULL
WHERE id = %(id)s
"""
_FAILED = """
WITH receiver AS (
    INSERT INTO app.webhook_receivers AS known (receiver, failures, next_at)
    SELECT %(receiver)s, 1, clock_timestamp() + make_interval(secs => %(first)s)
    WHERE %(pause)s
    ON CONFLICT (receiver) DO UPDATE SET
        failures = known.failures + 1,
        next_at = clock_timestamp() + make_interval(
            secs => least(%(longest_pause)s, %(first)s * 2 ^ least(known.failures, 20)))
)
UPDATE app.webhooks SET
    last_error = %(why)s,
    owner = NULL,
    given_up_at = CASE WHEN attempts >= %(most)s THEN clock_timestamp() END,
    next_at = clock_timestamp() + make_interval(
        secs => least(%(longest)s, %(first)s * 2 ^ least(attempts - 1, 20)) * (0.8 + random() * 0.4)
    )
WHERE id = %(id)s AND attempts = %(attempts)s AND delivered_at IS NULL
RETURNING given_up_at IS NOT NULL AS given_up
"""
_STATE = """
CASE WHEN delivered_at IS NOT NULL THEN 'delivered' WHEN given_up_at IS NOT NULL THEN 'given up'
    ELSE 'pending' END
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook that is ours to post."""

    id: UUID
    kind: str
    """Such as `job.done`."""
    url: str | None
    """None where the configuration names it: a ticket's."""
    body: str
    attempts: int
    key_id: UUID | None
    """Whose job it tells of."""

    @property
    def family(self) -> str:
        """What it tells of: `ticket` or `job`."""
        return self.kind.partition(".")[0]

    @property
    def lane(self) -> str:
        """Whose receivers it is one of: those of one key hold up no other key's."""
        return str(self.key_id) if self.key_id else TICKETS_LANE


class Webhooks:
    """The table `app.webhooks`.

    Args:
        pool: Connections.
        owner: Names this process among all that share the database; the same after a restart.
    """

    def __init__(self, pool: Pool, *, owner: str) -> None:
        self._pool = pool
        self._owner = owner

    async def release_own(self) -> int:
        """Make due again what an earlier life of this process was posting."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "UPDATE app.webhooks SET next_at = clock_timestamp(), owner = NULL"
                " WHERE owner = %s AND delivered_at IS NULL AND given_up_at IS NULL",
                (self._owner,),
            )
            return cursor.rowcount

    async def claim(self, families: Collection[str], *, full: Collection[str]) -> Delivery | None:
        """Take the delivery that is due longest, or None.

        Args:
            families: Of these only.
            full: Lanes in which no more is posted for now.
        """
        values = {
            "families": list(families),
            "full": list(full),
            "tickets": TICKETS_LANE,
            "claim": CLAIM_SECONDS,
            "owner": self._owner,
        }
        async with database_errors(), self._pool.connection() as connection:
            row = await (await connection.execute(_CLAIM, values)).fetchone()
        return Delivery(**row) if row else None

    async def delivered(self, delivery: Delivery) -> None:
        """Write down that it arrived."""
        values = {"id": delivery.id, "receiver": delivery.url or ""}
        async with database_errors(), self._pool.connection() as connection:
            await connection.execute(_DELIVERED, values)

    async def failed(
        self, delivery: Delivery, why: str, *, most: int, pause: bool, final: bool = False
    ) -> bool:
        """Put the next attempt off, or give up after the last; return whether it was given up.

        Args:
            delivery: What failed.
            why: What the receiver did, in a word.
            most: Attempts it has.
            pause: Whether others for that URL would fail as well, so that they wait too.
            final: No attempt will do better.
        """
        values = {
            "id": delivery.id,
            "receiver": delivery.url or "",
            "attempts": delivery.attempts,
            "why": why,
            "most": 0 if final else most,
            "pause": pause,
            "first": FIRST_RETRY_SECONDS,
            "longest": LONGEST_RETRY_SECONDS,
            "longest_pause": LONGEST_PAUSE_SECONDS,
        }
        async with database_errors(), self._pool.connection() as connection:
            row = await (await connection.execute(_FAILED, values)).fetchone()
        return bool(row and row["given_up"])

    async def pending(self) -> int:
        """Return how many are not delivered and not given up."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT count(*) AS n FROM app.webhooks"
                " WHERE delivered_at IS NULL AND given_up_at IS NULL"
            )
            row = await cursor.fetchone()
        return int(row["n"]) if row else 0


def list_webhooks(
    connection: psycopg.Connection, *, state: str | None, limit: int
) -> list[dict[str, Any]]:
    """Return the newest deliveries: pending, delivered or given up, without their bodies."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"SELECT id::text AS id, kind, ticket_id, job_id::text AS job_id, url,"  # noqa: S608
            f" {_STATE} AS state, attempts, last_error, next_at::text AS next_at,"
            " created_at::text AS created_at, delivered_at::text AS delivered_at"
            f" FROM app.webhooks WHERE %(state)s::text IS NULL OR {_STATE} = %(state)s"
            " ORDER BY created_at DESC LIMIT %(limit)s",
            {"state": state, "limit": limit},
        ).fetchall()


def retry_webhook(connection: psycopg.Connection, webhook_id: UUID) -> None:
    """Make a delivery due now, with all its attempts before it.

    Raises:
        NotFound: There is none of that id.
        InvalidRequest: It was delivered.
    """
    row = connection.execute(
        "UPDATE app.webhooks SET given_up_at = NULL, attempts = 0, owner = NULL,"
        " next_at = clock_timestamp() WHERE id = %s AND delivered_at IS NULL"
        " RETURNING coalesce(url, '')",
        (webhook_id,),
    ).fetchone()
    if row is None:
        known = connection.execute("SELECT FROM app.webhooks WHERE id = %s", (webhook_id,))
        if known.rowcount == 0:
            raise NotFound("no such webhook", place=str(webhook_id), cure="agent-app webhooks list")
        raise InvalidRequest("it was delivered", place=str(webhook_id), cure="nothing to do")
    connection.execute("DELETE FROM app.webhook_receivers WHERE receiver = %s", row)
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, Work.WEBHOOKS))
