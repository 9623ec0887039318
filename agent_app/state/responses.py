"""Cached answers in Redis: each under its key, any of them gone at any time.

Names are `cache:<key id>:<generation>:<kind>:<hash>`: another key, or the same one after `forget`,
cannot name them. They hold answers as they are, as the checkpoints in PostgreSQL do: the database
is not written to disk, is behind a password on the private network, and lets go after `seconds`.
"""

import asyncio
import base64
import json
import time
from array import array
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import UUID

import redis.asyncio as redis
import structlog

from agent_app.access.keys import Key
from agent_app.errors import NotFound
from agent_app.state.database import Pool, database_errors

REDIS_WAIT_SECONDS = 0.25
REDIS_PAUSE_SECONDS = 1.0
"""After a failure the cache is left alone so long: an outage must not slow every request."""
ANSWER_BYTES = 65_536
"""Longest answer kept; few are longer, and each takes the room of many."""
SCANNED_AT_ONCE = 500
FORGET_SECONDS = 30.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


class CacheAway(Exception):
    """Redis gives no answer, or has not lately."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that was answered before, and the name of its answer."""

    text: str
    vector: "array[float]"
    answer: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `forget` did, for a receipt."""

    generation: int
    """From now on the key's answers are named by this number."""
    deleted: int | None
    """Entries deleted; None where Redis did not answer, and they lapse by themselves."""


class Responses:
    """Reads and writes cached answers.

    Args:
        client: The Redis that may forget.
        seconds: How long an answer is kept.
    """

    def __init__(self, client: redis.Redis, *, seconds: int) -> None:
        self._client = client
        self._seconds = seconds
        self._away_until = 0.0

    async def find(self, key: Key, name: str) -> str | None:
        """Return the answer of this name.

        Raises:
            CacheAway: Redis does not answer.
        """
        reading = cast("Awaitable[bytes | None]", self._client.get(_place(key, "answer", name)))
        kept = await self._ask(reading)
        return kept.decode() if kept else None

    async def keep(self, key: Key, name: str, text: str) -> None:
        """Keep an answer.

        Raises:
            CacheAway: Redis does not answer.
        """
        value = text.encode()
        if len(value) <= ANSWER_BYTES:
            await self._ask(self._client.set(_place(key, "answer", name), value, ex=self._seconds))

    async def questions(self, key: Key, context: str, *, most: int) -> list[Question]:
        """Return the newest questions asked in the same context.

        Raises:
            CacheAway: Redis does not answer.
        """
        place = _place(key, "questions", context)
        reading = cast("Awaitable[list[bytes]]", self._client.lrange(place, 0, most - 1))
        return [found for line in await self._ask(reading) if (found := _read(line))]

    async def remember(self, key: Key, context: str, question: Question, *, most: int) -> None:
        """Add a question to its context, whose oldest give way.

        Raises:
            CacheAway: Redis does not answer.
        """
        place = _place(key, "questions", context)
        vector = base64.b64encode(question.vector.tobytes()).decode()
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.lpush(place, json.dumps([question.text, vector, question.answer]))
            pipeline.ltrim(place, 0, most - 1)
            pipeline.expire(place, self._seconds)
            await self._ask(pipeline.execute())

    async def _ask(self, question: Awaitable[T]) -> T:
        if time.monotonic() < self._away_until:
            cast("Any", question).close()
            raise CacheAway
        try:
            async with asyncio.timeout(REDIS_WAIT_SECONDS):
                return await question
        except (TimeoutError, redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + REDIS_PAUSE_SECONDS
            log.warning("cache_away", why=type(error).__name__)
            raise CacheAway from error


async def forget(pool: Pool, client: redis.Redis, key_id: UUID) -> Forgotten:
    """Erase all cached answers of a key.

    The next generation makes them unreachable, durably and before anything is deleted; processes
    follow within the five seconds for which they remember a key. A run under way may still write
    under the old generation: nobody can read that, and it lapses within `cache.seconds`.

    Raises:
        NotFound: There is no such key.
        DatabaseUnavailable: Nothing was changed.
    """
    async with database_errors(), pool.connection() as connection:
        cursor = await connection.execute(
            "UPDATE app.api_keys SET cache_generation = cache_generation + 1"
            " WHERE id = %s RETURNING cache_generation",
            (key_id,),
        )
        row = await cursor.fetchone()
    if row is None:
        raise NotFound("no such key", place=str(key_id), cure="see agent-app keys list")
    deleted: int | None = 0
    try:
        async with asyncio.timeout(FORGET_SECONDS):
            deleted = await _delete_all(client, f"cache:{key_id}:*")
    except (TimeoutError, redis.RedisError, OSError) as error:
        log.warning("cache_not_deleted", key=str(key_id), why=type(error).__name__)
        deleted = None
    return Forgotten(row["cache_generation"], deleted)


async def _delete_all(client: redis.Redis, pattern: str) -> int:
    deleted, cursor = 0, 0
    while True:
        cursor, names = await client.scan(cursor, match=pattern, count=SCANNED_AT_ONCE)
        if names:
            deleted += await client.unlink(*names)
        if cursor == 0:
            return deleted


def _place(key: Key, kind: str, name: str) -> str:
    return f"cache:{key.id}:{key.cache_generation}:{kind}:{name}"


def _read(line: bytes) -> Question | None:
    try:
        text, encoded, answer = json.loads(line)
        vector = array("f")
        vector.frombytes(base64.b64decode(encoded))
    except (ValueError, TypeError):
        return None
    return Question(text, vector, answer)
