"""What each key spends at clouds: bounded before, written down after."""

from collections import defaultdict
from uuid import UUID

from agent_app.agent.events import Usage
from agent_app.state.database import Pool, database_errors
from agent_app.state.usage import ADD_UP, first_of_month

# The run is counted as a request once, under its own model.
_ADD = """
INSERT INTO app.usage
VALUES (%s, (now() AT TIME ZONE 'UTC')::date, %s, %s, 0, %s, %s, %s)
"""


class CloudSpend:
    """Tokens of a key at a cloud in a calendar month (UTC).

    What is under way in this process counts as spent by its upper bound, so only other processes'
    runs under way can carry a key beyond its budget.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._held: defaultdict[tuple[UUID, str], int] = defaultdict(int)

    async def reserve(self, key_id: UUID, cloud: str, tokens: int, *, budget: int) -> bool:
        """Set tokens aside; return whether the budget has room for them.

        Raises:
            DatabaseUnavailable: Nobody knows what is left.
        """
        place = (key_id, cloud)
        self._held[place] += tokens  # before the wait below, so that two cannot take one rest
        fits = False
        try:
            fits = await self._spent(key_id, cloud) + self._held[place] <= budget
        finally:
            if not fits:
                self.release(key_id, cloud, tokens)
        return fits

    def release(self, key_id: UUID, cloud: str, tokens: int) -> None:
        """Give back what was set aside."""
        self._held[key_id, cloud] -= tokens
        if self._held[key_id, cloud] <= 0:
            del self._held[key_id, cloud]

    async def add(
        self, key_id: UUID, cloud: str, feature: str, usage: Usage, *, seconds: float
    ) -> None:
        """Write down what was used, in the answering cloud's name.

        Raises:
            DatabaseUnavailable: It could not be.
        """
        async with database_errors(), self._pool.connection() as connection:
            await connection.execute(
                _ADD + ADD_UP,
                (key_id, cloud, feature, usage.prompt_tokens, usage.completion_tokens, seconds),
            )

    async def _spent(self, key_id: UUID, cloud: str) -> int:
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint AS tokens"
                " FROM app.usage WHERE key_id = %s AND model = %s AND day >= %s",
                (key_id, cloud, first_of_month()),
            )
            row = await cursor.fetchone()
        return int(row["tokens"]) if row else 0
