"""What tools did, keyed by the call, so that a replayed step finds its result.

A call whose repetition would do harm is written down before it is made. Where a process dies in
between, the row has no result: nobody knows whether the call took effect, and it is not made again.
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from agent_app.state.database import Pool, database_errors


@dataclass(frozen=True, slots=True)
class Effect:
    """What a call gave: text for the model, where it comes from, and whether it succeeded."""

    text: str
    sources: list[dict[str, Any]]
    ok: bool = True


@dataclass(frozen=True, slots=True)
class EffectKey:
    """Which call of which tool with which arguments (a JSON object)."""

    run_id: UUID
    call_id: str
    thread_id: UUID | None
    tool: str
    arguments: str
    key_id: UUID | None = None


UNKNOWN = Effect(
    "error: an earlier attempt made this call and ended before its result came, so nobody knows"
    " whether it took effect. It was not made again. Find out by other means, or ask the user.",
    [],
    ok=False,
)


class Effects:
    """The table `app.tool_effects`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, run_id: UUID, call_id: str) -> Effect | None:
        """Return the stored result of a call, or None if there is none."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT result, sources, ok FROM app.tool_effects"
                " WHERE run_id = %s AND tool_call_id = %s AND result IS NOT NULL",
                (run_id, call_id),
            )
            row = await cursor.fetchone()
        return Effect(row["result"], row["sources"], row["ok"]) if row else None

    async def begin(self, key: EffectKey) -> bool:
        """Write down that a call is about to be made; return False if that was written before."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "INSERT INTO app.tool_effects (run_id, tool_call_id, thread_id, tool, arguments)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    key.run_id,
                    key.call_id,
                    key.thread_id,
                    key.tool,
                    Jsonb(json.loads(key.arguments)),
                ),
            )
            return cursor.rowcount == 1

    async def record(self, key: EffectKey, effect: Effect) -> None:
        """Store the result of a call; a second one for the same call changes nothing.

        The audit's entry is part of the statement: there is one for each stored result.
        """
        async with database_errors(), self._pool.connection() as connection:
            await connection.execute(
                _RECORD,
                (
                    key.run_id,
                    key.call_id,
                    key.thread_id,
                    key.tool,
                    Jsonb(json.loads(key.arguments)),
                    effect.text.replace("\0", ""),
                    Jsonb(effect.sources),
                    effect.ok,
                    key.key_id,
                ),
            )


_RECORD = """
WITH stored AS (
    INSERT INTO app.tool_effects AS known
        (run_id, tool_call_id, thread_id, tool, arguments, result, sources, ok)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (run_id, tool_call_id) DO UPDATE
    SET result = EXCLUDED.result, sources = EXCLUDED.sources, ok = EXCLUDED.ok
    WHERE known.result IS NULL
    RETURNING run_id, thread_id, tool, tool_call_id, known.ok
)
INSERT INTO app.audit_outbox (kind, key_id, thread_id, run_id, details)
SELECT 'tool.call', %s, thread_id, run_id,
    jsonb_build_object('tool', tool, 'call', tool_call_id, 'ok', ok)::text
FROM stored
"""
