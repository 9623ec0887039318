"""Semantic search: whether it is on, what it finds, and the vectors that it needs."""

import asyncio
import time
from collections.abc import Callable

import structlog

from agent_app.agent.embeddings import EmbeddingClient, EmbeddingFailure
from agent_app.errors import DatabaseUnavailable
from agent_app.state.database import Pool, database_errors
from agent_app.state.vectors import NO_EXTENSION, Vectors

REST_SECONDS = 15.0  # after a failure the endpoint is left alone for so long
LOOK_SECONDS = 30.0  # between looks for passages without a vector
LOCK = "SELECT pg_try_advisory_lock(hashtext('agent_app knowledge embeddings')) AS mine"
UNLOCK = "SELECT pg_advisory_unlock(hashtext('agent_app knowledge embeddings'))"

log = structlog.get_logger(__name__)


class Semantic:
    """Finds passages by meaning; where it cannot, full text serves alone and this says why."""

    def __init__(self, pool: Pool, embeddings: EmbeddingClient) -> None:
        self._pool = pool
        self._embeddings = embeddings
        self._vectors = Vectors(
            pool, model=embeddings.identity, dimensions=embeddings.config.dimensions
        )
        self._why = ""
        self._rest_until = float("-inf")

    @property
    def identity(self) -> str:
        """Of the vectors that are compared now."""
        return self._embeddings.identity

    async def nearest(
        self, text: str, collections: list[str] | None, *, resident: bool
    ) -> list[int] | None:
        """Return the passages nearest to a question, or None where semantic search is off.

        Args:
            text: The question.
            collections: Where to look; None is everywhere.
            resident: It must not leave our hosts.
        """
        if not self._embeddings.may_read(resident=resident):
            return None
        if time.monotonic() < self._rest_until or not await self._vectors.has_extension():
            return None
        try:
            question = await self._embeddings.question(text)
        except EmbeddingFailure as error:
            self._fail(str(error))
            return None
        self._why = ""
        return await self._vectors.nearest(question, collections)

    async def why_off(self) -> str:
        """Return "" if semantic search works, else why it does not."""
        if not await self._vectors.has_extension():
            return NO_EXTENSION
        if time.monotonic() >= self._rest_until:
            try:
                await self._embeddings.question("ping")
                self._why = ""
            except EmbeddingFailure as error:
                self._fail(str(error))
            else:
                self._rest_until = float("-inf")
        return self._why

    def _fail(self, why: str) -> None:
        if why != self._why:
            log.warning("semantic_search_off", why=why)
        self._why = why
        self._rest_until = time.monotonic() + REST_SECONDS

    async def embed_lacking(self, tell: Callable[[int], None] = lambda _made: None) -> int | None:
        """Make the vectors that are missing, those of another model anew; one process at a time.

        Args:
            tell: Told how many are made, after every request.

        Returns:
            How many were made; None where another process is at it or there is no pgvector.

        Raises:
            EmbeddingFailure: The endpoint gave none; what was made stays.
        """
        if not await self._vectors.has_extension():
            return None
        async with database_errors(), self._pool.connection() as connection:
            row = await (await connection.execute(LOCK)).fetchone()
            if not row or not row["mine"]:
                return None
            try:
                return await self._embed_all(tell)
            finally:
                await connection.execute(UNLOCK)

    async def _embed_all(self, tell: Callable[[int], None]) -> int:
        made, last = 0, 0
        while lacking := await self._vectors.lacking(self._embeddings.config.batch, after=last):
            vectors = await self._embeddings.passages([text for _, text in lacking])
            numbers = [number for number, _ in lacking]
            await self._vectors.store(list(zip(numbers, vectors, strict=True)))
            last = numbers[-1]
            made += len(lacking)
            tell(made)
        return made

    async def keep_up(self) -> None:
        """Make missing vectors now and then, for as long as the process lives."""
        while True:
            try:
                if made := await self.embed_lacking():
                    log.info("passages_embedded", count=made)
            except EmbeddingFailure as error:
                self._fail(str(error))
            except DatabaseUnavailable as error:
                log.warning("passages_not_embedded", why=str(error))
            except Exception:
                log.exception("passages_not_embedded")
            await asyncio.sleep(LOOK_SECONDS)
