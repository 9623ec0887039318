"""The table `app.usage`: what each key used, by day, model and feature."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from agent_app.agent.events import NO_USAGE, Usage
from agent_app.errors import InvalidRequest
from agent_app.state.database import Pool, database_errors

ADD_UP = """
ON CONFLICT (key_id, day, model, feature) DO UPDATE SET
    requests = usage.requests + excluded.requests,
    prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = usage.completion_tokens + excluded.completion_tokens,
    engine_seconds = usage.engine_seconds + excluded.engine_seconds
"""

_ADD = """
INSERT INTO app.usage
VALUES (%s, (now() AT TIME ZONE 'UTC')::date, %s, %s, 1, %s, %s, %s)
"""

ROWS = """
SELECT name AS key, day::text, model, feature, requests, prompt_tokens, completion_tokens,
    round(engine_seconds::numeric, 3)::float8 AS engine_seconds
FROM app.usage JOIN app.api_keys ON api_keys.id = key_id
WHERE day >= %(first)s AND day < %(first)s::date + interval '1 month'
    AND (%(key)s::uuid IS NULL OR key_id = %(key)s)
    AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY day, name, model, feature
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one attempt of a run used."""

    usage: Usage
    engine_seconds: float
    """Wall clock of its engine streams; not the GPU's own time, which many streams share."""
    feature: str
    elsewhere: Usage = NO_USAGE
    """Of it, what clouds answered and `CloudSpend` has counted under their names."""

    @property
    def here(self) -> Usage:
        """What our own engines answered."""
        return self.usage - self.elsewhere


def first_of_month(text: str | None = None) -> date:
    """Return the first day of a month such as `2026-11`, by default of this one in UTC.

    Raises:
        InvalidRequest: It is no month.
    """
    if text is None:
        return datetime.now(UTC).date().replace(day=1)
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is not a month", place="month", cure="write 2026-11"
        ) from error


class UsageTable:
    """Reads and writes usage."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, key_id: UUID, model: str, spent: Spent) -> None:
        """Count a request that keeps no state; others are counted by `Runs.finish`."""
        async with database_errors(), self._pool.connection() as connection:
            await connection.execute(
                _ADD + ADD_UP,
                (
                    key_id,
                    model,
                    spent.feature,
                    spent.here.prompt_tokens,
                    spent.here.completion_tokens,
                    spent.engine_seconds,
                ),
            )

    async def month_tokens(self, key_id: UUID) -> int:
        """Return the tokens of a key in this calendar month (UTC)."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint AS tokens"
                " FROM app.usage WHERE key_id = %s AND day >= %s",
                (key_id, first_of_month()),
            )
            row = await cursor.fetchone()
        return int(row["tokens"]) if row else 0

    async def rows(self, first: date, *, key_id: UUID | None) -> list[dict[str, Any]]:
        """Return a month's figures, of one key or of all."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(ROWS, {"first": first, "key": key_id, "name": None})
            return await cursor.fetchall()
