"""A key's threads as it may see them: listed, read and deleted."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from agent_app.agent.conversation import Message
from agent_app.errors import InvalidRequest, NotFound, ThreadBusy
from agent_app.state.audit import Entry, append
from agent_app.state.database import Pool, database_errors

TITLE_CHARACTERS = 80

_FIRST_AND_LAST = """
SELECT thread.id, thread.created_at, thread.tokens,
    first.message AS first_message,
    last.id AS run_id, last.message AS last_message,
    CASE WHEN last.status = 'running' AND last.lease_until <= now()
        THEN 'interrupted' ELSE last.status END AS status,
    COALESCE(last.finished_at, last.started_at, thread.created_at) AS updated_at
FROM app.threads AS thread
LEFT JOIN LATERAL (
    SELECT message FROM app.runs WHERE thread_id = thread.id ORDER BY number LIMIT 1
) AS first ON true
LEFT JOIN LATERAL (
    SELECT * FROM app.runs WHERE thread_id = thread.id ORDER BY number DESC LIMIT 1
) AS last ON true
WHERE thread.key_id = %(key)s
"""
_ONE = _FIRST_AND_LAST + "AND thread.id = %(thread)s"
_PAGE = (
    _FIRST_AND_LAST
    + """
AND (%(created)s::timestamptz IS NULL
    OR (thread.created_at, thread.id) < (%(created)s::timestamptz, %(thread)s::uuid))
ORDER BY thread.created_at DESC, thread.id DESC
LIMIT %(limit)s
"""
)


@dataclass(frozen=True, slots=True)
class Thread:
    """What is known of a thread without its messages."""

    id: UUID
    title: str
    status: str
    """Of its last run; `interrupted` also where its process died."""
    created_at: datetime
    updated_at: datetime
    tokens: int
    last_run: UUID | None
    last_message: str


class Threads:
    """The threads of all keys; every call names the key and sees its own only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(
        self, key_id: UUID, *, cursor: str | None, limit: int
    ) -> tuple[list[Thread], str | None]:
        """Return threads, newest first, and the cursor of the next page if there is one.

        Raises:
            InvalidRequest: The cursor is not one of ours.
        """
        created, thread_id = _read_cursor(cursor) if cursor else (None, None)
        values = {"key": key_id, "created": created, "thread": thread_id, "limit": limit + 1}
        async with database_errors(), self._pool.connection() as connection:
            rows = await (await connection.execute(_PAGE, values)).fetchall()
        found = [_thread(row) for row in rows[:limit]]
        return found, _write_cursor(found[-1]) if len(rows) > limit else None

    async def read(self, key_id: UUID, thread_id: UUID) -> tuple[Thread, list[Message]]:
        """Return a thread with its messages, one that no checkpoint has yet included.

        Raises:
            NotFound: The thread is not this key's, or not there.
        """
        values = {"key": key_id, "thread": thread_id}
        async with database_errors(), self._pool.connection() as connection:
            row = await (await connection.execute(_ONE, values)).fetchone()
            if row is None:
                raise NotFound("no such thread")
            state = await AsyncPostgresSaver(connection).aget_tuple(
                {"configurable": {"thread_id": str(thread_id)}}
            )
        messages: list[Message] = []
        if state is not None:
            messages = state.checkpoint["channel_values"].get("messages") or []
        thread = _thread(row)
        begun = str(thread.last_run) if thread.last_run else ""
        if begun and not any(message["id"] == begun for message in messages):
            said = {"id": begun, "role": "user", "content": thread.last_message}
            messages = [*messages, said]
        return thread, messages

    async def delete(self, key_id: UUID, thread_id: UUID, *, correlation: str = "") -> None:
        """Delete a thread: messages, runs, jobs, results of tools and checkpoints, all or
        nothing.

        Raises:
            NotFound: The thread is not this key's, or not there.
            ThreadBusy: A run or a job is under way.
        """
        async with (
            database_errors(),
            self._pool.connection() as connection,
            connection.transaction(),
        ):
            cursor = await connection.execute(
                "SELECT FROM app.threads WHERE id = %s AND key_id = %s FOR UPDATE",
                (thread_id, key_id),
            )
            if cursor.rowcount == 0:
                raise NotFound("no such thread")
            # A statement of its own: the lock may have waited for a run that now is there.
            cursor = await connection.execute(
                "SELECT FROM app.runs WHERE thread_id = %s AND status = 'running'"
                " AND lease_until > clock_timestamp()",
                (thread_id,),
            )
            if cursor.rowcount:
                raise ThreadBusy("a run of the thread is under way; stop it first")
            cursor = await connection.execute(
                "SELECT FROM app.jobs WHERE thread_id = %s AND status = ANY(%s)",
                (thread_id, ["queued", "waiting", "running"]),
            )
            if cursor.rowcount:
                raise ThreadBusy("a job of the thread is under way; cancel it first")
            await connection.execute("DELETE FROM app.jobs WHERE thread_id = %s", (thread_id,))
            await AsyncPostgresSaver(connection).adelete_thread(str(thread_id))
            await connection.execute(
                "DELETE FROM app.tool_effects WHERE thread_id = %s", (thread_id,)
            )
            await connection.execute("DELETE FROM app.threads WHERE id = %s", (thread_id,))
            await append(connection, Entry("thread.delete", key_id, thread_id, None, correlation))


def _thread(row: dict[str, Any]) -> Thread:
    return Thread(
        id=row["id"],
        title=make_title(row["first_message"] or ""),
        status=row["status"] or "done",
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        tokens=row["tokens"],
        last_run=row["run_id"],
        last_message=row["last_message"] or "",
    )


def make_title(message: str) -> str:
    """Return a message as one short line, cut between words."""
    line = " ".join(message[: 10 * TITLE_CHARACTERS].split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    cut = line[:TITLE_CHARACTERS]
    return f"{cut.rsplit(' ', 1)[0] if ' ' in cut else cut}…"


def _write_cursor(thread: Thread) -> str:
    text = f"{thread.created_at.isoformat()}_{thread.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        created, _, thread_id = text.partition("_")
        return datetime.fromisoformat(created), UUID(thread_id)
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest("cursor: take next_cursor of the page before") from error
