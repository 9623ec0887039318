"""Vectors of passages in PostgreSQL: which are missing, which are near, by pgvector.

They are stored as plain arrays and cast where they are compared, so the tables do not depend on the
extension; it may come, or be in a schema of its own, at any time.
"""

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from agent_app.state.database import Pool, database_errors

CANDIDATES = 30
SEARCH_EFFORT = 100  # hnsw.ef_search: how many neighbours the index weighs, 40 by default
INDEXED_DIMENSIONS = 2000  # as many as pgvector's index takes of this type
NO_EXTENSION = (
    "PostgreSQL has no extension pgvector in this database: set postgres_pgvector where the"
    " distribution packages it (Debian 13, Ubuntu 24.04)"
)

EXTENSION_SCHEMA = """
SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'vector'
"""
_LACKING = """
SELECT chunk.id, concat_ws(E'\\n', chunk.title, nullif(chunk.heading, ''), chunk.body) AS text
FROM app.knowledge_chunks AS chunk
LEFT JOIN app.knowledge_embeddings AS made ON made.chunk_id = chunk.id
    AND made.model = %(model)s AND made.dimensions = %(dimensions)s
WHERE made.chunk_id IS NULL AND chunk.id > %(after)s
ORDER BY chunk.id LIMIT %(limit)s
"""
# A passage may have gone while its vector was made.
_STORE = """
INSERT INTO app.knowledge_embeddings (chunk_id, model, dimensions, embedding)
SELECT id, %s, %s, %s::real[] FROM app.knowledge_chunks WHERE id = %s FOR KEY SHARE
ON CONFLICT (chunk_id) DO UPDATE SET model = excluded.model, dimensions = excluded.dimensions,
    embedding = excluded.embedding, embedded_at = now()
"""
_NEAREST = """
SELECT chunk_id FROM app.knowledge_embeddings AS made
WHERE dimensions = {dimensions} AND model = %(model)s
ORDER BY embedding::{vector}({dimensions}) OPERATOR({schema}.<=>)
    %(question)s::real[]::{vector}({dimensions})
LIMIT %(limit)s
"""
# Few collections: exactly, since an index would look among all and then drop most.
_NEAREST_OF_COLLECTIONS = """
WITH made AS MATERIALIZED (
    SELECT chunk_id, embedding FROM app.knowledge_embeddings
    JOIN app.knowledge_chunks AS chunk ON chunk.id = chunk_id
    JOIN app.knowledge_documents AS document ON document.id = chunk.document_id
    WHERE dimensions = {dimensions} AND model = %(model)s AND collection = ANY(%(collections)s)
)
SELECT chunk_id FROM made
ORDER BY embedding::{vector}({dimensions}) OPERATOR({schema}.<=>)
    %(question)s::real[]::{vector}({dimensions})
LIMIT %(limit)s
"""


class Vectors:
    """The table `app.knowledge_embeddings`, for one embedding model.

    Args:
        pool: The database.
        model: What vectors must have in common to be compared; `EmbeddingClient.identity`.
        dimensions: Their length.
    """

    def __init__(self, pool: Pool, *, model: str, dimensions: int) -> None:
        self._pool = pool
        self._model = model
        self._dimensions = dimensions
        self._schema = ""

    async def has_extension(self) -> bool:
        """Tell whether pgvector is there; once it is, it is not asked for again."""
        if not self._schema:
            async with database_errors(), self._pool.connection() as connection:
                cursor = await connection.execute(EXTENSION_SCHEMA)
                row = await cursor.fetchone()
            self._schema = str(row["nspname"]) if row else ""
        return bool(self._schema)

    async def lacking(self, limit: int, *, after: int = 0) -> list[tuple[int, str]]:
        """Return passages without a vector of this model: their number and what to embed."""
        values = {
            "model": self._model,
            "dimensions": self._dimensions,
            "limit": limit,
            "after": after,
        }
        async with database_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(_LACKING, values)
            return [(row["id"], row["text"]) for row in await cursor.fetchall()]

    async def store(self, made: list[tuple[int, list[float]]]) -> None:
        """Keep vectors of passages; those of another model are replaced."""
        rows = [(self._model, self._dimensions, vector, number) for number, vector in made]
        async with (
            database_errors(),
            self._pool.connection() as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            await cursor.executemany(_STORE, rows)

    async def nearest(self, question: list[float], collections: list[str] | None) -> list[int]:
        """Return the passages nearest to a question, best first.

        Args:
            question: Its vector.
            collections: Where to look; None is everywhere.
        """
        text = _NEAREST if collections is None else _NEAREST_OF_COLLECTIONS
        query = sql.SQL(text).format(
            dimensions=sql.Literal(self._dimensions),
            schema=sql.Identifier(self._schema),
            vector=sql.Identifier(self._schema, "vector"),
        )
        values = {
            "model": self._model,
            "question": question,
            "collections": collections,
            "limit": CANDIDATES,
        }
        async with (
            database_errors(),
            self._pool.connection() as connection,
            connection.transaction(),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            # set_config fails on a setting unknown before the extension's library is loaded.
            await cursor.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(SEARCH_EFFORT))
            await cursor.execute(query, values)
            return [row[0] for row in await cursor.fetchall()]


def ensure_index(connection: psycopg.Connection, dimensions: int) -> str:
    """Make the index for vectors of this length and drop those for others.

    Args:
        connection: As the tables' owner, autocommit.
        dimensions: Length of the vectors.

    Returns:
        Why there is none, or "".
    """
    row = connection.execute(EXTENSION_SCHEMA).fetchone()
    if row is None:
        return NO_EXTENSION
    name = f"knowledge_embeddings_{dimensions}"
    found = connection.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'app'"
        " AND tablename = 'knowledge_embeddings' AND indexdef LIKE '%% USING hnsw %%'"
    ).fetchall()
    for (other,) in found:
        if other != name:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier("app", other)))
    if dimensions > INDEXED_DIMENSIONS:
        return f"pgvector indexes up to {INDEXED_DIMENSIONS} dimensions, these are {dimensions}"
    statement = """
        CREATE INDEX IF NOT EXISTS {name} ON app.knowledge_embeddings
        USING hnsw ((embedding::{vector}({dimensions})) {operators}) WHERE dimensions = {dimensions}
    """
    connection.execute(
        sql.SQL(statement).format(
            name=sql.Identifier(name),
            vector=sql.Identifier(row[0], "vector"),
            operators=sql.Identifier(row[0], "vector_cosine_ops"),
            dimensions=sql.Literal(dimensions),
        )
    )
    return ""
