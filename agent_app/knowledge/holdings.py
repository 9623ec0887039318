"""What the knowledge base holds: listed, counted, removed."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from agent_app.config import Config
from agent_app.errors import NotFound
from agent_app.state.vectors import EXTENSION_SCHEMA, NO_EXTENSION

_LIST = """
SELECT collection, path, title, url, language, bytes, ingested_at::text,
    (SELECT count(*) FROM app.knowledge_chunks WHERE document_id = document.id) AS passages
FROM app.knowledge_documents AS document
WHERE %(collection)s::text IS NULL OR collection = %(collection)s
ORDER BY collection, path
"""
_COUNTS = """
SELECT collection, count(*) AS documents, sum(bytes)::bigint AS bytes,
    sum((SELECT count(*) FROM app.knowledge_chunks WHERE document_id = document.id))::bigint
        AS passages,
    count(*) FILTER (WHERE language <> %(language)s) AS other_language,
    max(ingested_at)::text AS last_ingested_at
FROM app.knowledge_documents AS document
GROUP BY collection ORDER BY collection
"""
_EMBEDDED = """
SELECT count(*) AS made FROM app.knowledge_embeddings WHERE model = %s AND dimensions = %s
"""
_INDEXED = """
SELECT 1 FROM pg_indexes WHERE schemaname = 'app' AND indexname = %s
"""


def list_documents(connection: psycopg.Connection, collection: str | None) -> list[dict[str, Any]]:
    """Return the documents of a collection, or of all."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_LIST, {"collection": collection}).fetchall()


def count_holdings(connection: psycopg.Connection, config: Config, identity: str) -> dict[str, Any]:
    """Return what there is, by collection, and how much of it has vectors.

    Args:
        connection: To the database.
        config: Language and embedding model.
        identity: Of the vectors wanted now; see `EmbeddingClient.identity`.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        values = {"language": config.knowledge.language}
        collections = cursor.execute(_COUNTS, values).fetchall()
        semantic: dict[str, Any] = {"on": False, "why": ""}
        if config.embeddings is None:
            semantic["why"] = "no embedding model is configured (section embeddings)"
        else:
            dimensions = config.embeddings.dimensions
            made = cursor.execute(_EMBEDDED, (identity, dimensions)).fetchone()
            indexed = cursor.execute(_INDEXED, (f"knowledge_embeddings_{dimensions}",)).fetchone()
            semantic |= {
                "model": config.embeddings.model,
                "dimensions": dimensions,
                "embedded_passages": made["made"] if made else 0,
                "indexed": indexed is not None,
            }
            if cursor.execute(EXTENSION_SCHEMA).fetchone() is None:
                semantic["why"] = NO_EXTENSION
    return {
        "language": config.knowledge.language,
        "collections": collections,
        "semantic": semantic,
    }


def remove_documents(connection: psycopg.Connection, collection: str, paths: list[str]) -> int:
    """Remove documents of a collection; without paths all of them. Returns how many.

    Raises:
        NotFound: The collection has none of these.
    """
    removed = connection.execute(
        "DELETE FROM app.knowledge_documents WHERE collection = %s"
        " AND (%s::text[] IS NULL OR path = ANY(%s::text[]))",
        (collection, paths or None, paths or None),
    ).rowcount
    if not removed:
        raise NotFound(
            f"nothing to remove: {', '.join(paths) or 'the collection is empty'}",
            place=f"collection {collection}",
            cure="agent-app knowledge list shows what there is",
        )
    return removed
