"""Search over the knowledge base: full text always, meaning too where there are vectors."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agent_app.access.keys import COLLECTION_SCOPE
from agent_app.config import Knowledge as Settings
from agent_app.knowledge.semantic import Semantic
from agent_app.observability import metrics
from agent_app.state.database import Pool, database_errors
from agent_app.state.vectors import CANDIDATES

RANK_OFFSET = 60  # k of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)

_FULL_TEXT = """
SELECT chunk.id
FROM (SELECT {query} AS query) AS asked, app.knowledge_chunks AS chunk
JOIN app.knowledge_documents AS document ON document.id = chunk.document_id
WHERE chunk.words @@ query
    AND (%(collections)s::text[] IS NULL OR document.collection = ANY(%(collections)s))
ORDER BY ts_rank(chunk.words, query) DESC, chunk.id
LIMIT %(limit)s
"""
# All words, as a search engine reads them; where too little has all of them, any of them.
_ALL = "websearch_to_tsquery(%(language)s::regconfig, %(text)s)"
_ANY = "replace(plainto_tsquery(%(language)s::regconfig, %(text)s)::text, '&', '|')::tsquery"
_SHOW = """
SELECT chunk.id, chunk.title, chunk.heading, chunk.body, document.path, document.url,
    document.collection
FROM app.knowledge_chunks AS chunk
JOIN app.knowledge_documents AS document ON document.id = chunk.document_id
WHERE chunk.id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who searches."""

    collections: list[str] | None = None
    """Where they may look; None is everywhere."""
    resident: bool = False
    """What they ask must not leave our hosts."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One find, and where it stands."""

    chunk: int
    title: str
    heading: str
    text: str
    path: str
    url: str
    collection: str


def fuse(*lists: list[int]) -> list[int]:
    """Merge ranked lists: what stands high in several comes first.

    Reciprocal rank fusion needs no scores, which full text and vectors do not share.
    """
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, item in enumerate(ranked, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (RANK_OFFSET + rank)
    return sorted(scores, key=lambda item: (-scores[item], item))


class Knowledge:
    """Search over the ingested documents.

    Args:
        pool: The database.
        settings: Language and number of results.
        semantic: Finds by meaning; None where no embedding model is configured.
    """

    def __init__(self, pool: Pool, settings: Settings, semantic: Semantic | None = None) -> None:
        self._pool = pool
        self._settings = settings
        self._semantic = semantic

    async def search(self, text: str, reader: Reader = Reader()) -> list[Passage]:
        """Return the best passages, best first.

        Args:
            text: What is looked for, in a person's words.
            reader: Who looks for it; by default an operator, who may see all.
        """
        by_words = await self._by_words(text, reader.collections)
        by_meaning: list[int] | None = None
        if self._semantic is not None:
            by_meaning = await self._semantic.nearest(
                text, reader.collections, resident=reader.resident
            )
        mode = "full_text" if by_meaning is None else "hybrid"
        metrics.KNOWLEDGE_SEARCHES.labels(mode).inc()
        best = fuse(by_words, by_meaning or [])[: self._settings.results]
        async with database_errors(), self._pool.connection() as connection:
            rows = await (await connection.execute(_SHOW, (best,))).fetchall()
        found = {row["id"]: _passage(row) for row in rows}
        return [found[number] for number in best if number in found]

    async def _by_words(self, text: str, collections: list[str] | None) -> list[int]:
        values = {
            "text": text,
            "language": self._settings.language,
            "collections": collections,
            "limit": CANDIDATES,
        }
        found: dict[int, None] = {}
        async with database_errors(), self._pool.connection() as connection:
            for query in (_ALL, _ANY):
                cursor = await connection.execute(_FULL_TEXT.format(query=query), values)
                found |= {row["id"]: None for row in await cursor.fetchall()}
                if len(found) >= self._settings.results:
                    break
        return list(found)

    async def reader(self, key_id: UUID | None) -> Reader:
        """Return what a key may see, and whether it is resident; an erased one sees nothing."""
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT scopes, resident FROM app.api_keys WHERE id = %s", (key_id,)
            )
            row = await cursor.fetchone()
        if row is None:
            return Reader([], resident=True)
        scopes: list[str] = row["scopes"]
        named = [s.removeprefix(COLLECTION_SCOPE) for s in scopes if s.startswith(COLLECTION_SCOPE)]
        return Reader(named or None, resident=row["resident"])


def _passage(row: dict[str, Any]) -> Passage:
    return Passage(
        row["id"],
        row["title"],
        row["heading"],
        row["body"],
        row["path"],
        row["url"],
        row["collection"],
    )
