"""What tools did, keyed by the call, so that a replayed step finds its result."""

import json
from dataclasses import dataclass
from uuid import UUID

from psycopg.types.json import Jsonb

from agent_app.state.database import Pool, database_errors


@dataclass(frozen=True, slots=True)
class Effect:
    """What a call gave: text for the model, and where it comes from."""

    text: str
    sources: list[dict[str, str]]


class Effects:
    """The table `app.tool_effects`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, run_id: UUID, tool_call_id: str) -> Effect | None:
        """Return the stored result of a call, or None if it has not run."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT result, sources FROM app.tool_effects"
                " WHERE run_id = %s AND tool_call_id = %s",
                (run_id, tool_call_id),
            )
            row = await cursor.fetchone()
        return Effect(row["result"], row["sources"]) if row else None

    async def record(
        self,
        run_id: UUID,
        tool_call_id: str,
        thread_id: UUID | None,
        tool: str,
        arguments: str,
        effect: Effect,
    ) -> None:
        """Store the result of a call; a second one for the same call changes nothing."""
        async with database_errors(), self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO app.tool_effects"
                " (run_id, tool_call_id, thread_id, tool, arguments, result, sources)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    run_id,
                    tool_call_id,
                    thread_id,
                    tool,
                    Jsonb(json.loads(arguments)),
                    effect.text,
                    Jsonb(effect.sources),
                ),
            )
