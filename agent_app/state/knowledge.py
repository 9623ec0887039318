"""The knowledge base: Markdown in, passages out, by PostgreSQL's full-text search."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from agent_app.errors import InvalidRequest
from agent_app.state.database import Pool, database_errors

PASSAGES = 3
PASSAGE_CHARACTERS = 400

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
_SEARCH = """
SELECT chunk.title, chunk.body, document.path
FROM {query} AS query, app.knowledge_chunks AS chunk
JOIN app.knowledge_documents AS document ON document.id = chunk.document_id
WHERE chunk.words @@ query
ORDER BY ts_rank(chunk.words, query) DESC, chunk.id
LIMIT %(limit)s
"""
# All words, as a search engine reads them; where nothing has all of them, any of them.
_ALL = "websearch_to_tsquery('english', %(text)s)"
_ANY = "replace(plainto_tsquery('english', %(text)s)::text, '&', '|')::tsquery"


@dataclass(frozen=True, slots=True)
class Passage:
    """One find: its text, and its document's title and path."""

    title: str
    text: str
    path: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did."""

    new: int
    unchanged: int


class Knowledge:
    """Search over the ingested documents."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def search(self, text: str) -> list[Passage]:
        """Return at most three passages, best first."""
        values = {"text": text, "limit": PASSAGES}
        async with database_errors(), self._pool.connection() as connection:
            for query in (_ALL, _ANY):
                cursor = await connection.execute(_SEARCH.format(query=query), values)
                if rows := await cursor.fetchall():
                    return [
                        Passage(r["title"], r["body"][:PASSAGE_CHARACTERS], r["path"]) for r in rows
                    ]
        return []


def ingest(connection: psycopg.Connection, directory: Path) -> Ingested:
    """Read every Markdown file under a directory into the knowledge base.

    A file that did not change is left alone; one that did replaces its old passages.

    Raises:
        InvalidRequest: There is no such directory, or no Markdown in it.
    """
    files = sorted(directory.rglob("*.md")) if directory.is_dir() else []
    if not files:
        raise InvalidRequest(
            "no Markdown files found", place=str(directory), cure="name a folder with *.md files"
        )
    new = 0
    for file in files:
        new += _ingest_file(connection, str(file.relative_to(directory)), file)
    return Ingested(new=new, unchanged=len(files) - new)


def _ingest_file(connection: psycopg.Connection, name: str, file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    title, passages = split(text, fallback=file.stem)
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO app.knowledge_documents AS d (path, title, sha256) VALUES (%s, %s, %s)"
            " ON CONFLICT (path) DO UPDATE SET"
            " title = excluded.title, sha256 = excluded.sha256, ingested_at = now()"
            " WHERE d.sha256 <> excluded.sha256 RETURNING id",
            (name, title, digest),
        ).fetchone()
        if row is None:
            return False
        connection.execute("DELETE FROM app.knowledge_chunks WHERE document_id = %s", (row[0],))
        connection.cursor().executemany(
            "INSERT INTO app.knowledge_chunks (document_id, position, title, body)"
            " VALUES (%s, %s, %s, %s)",
            [(row[0], position, title, body) for position, body in enumerate(passages)],
        )
    return True


def split(text: str, *, fallback: str) -> tuple[str, list[str]]:
    """Return a document's title and its passages, each short enough to be shown whole.

    Args:
        text: Markdown.
        fallback: The title where there is no heading.
    """
    heading = _HEADING.search(text)
    title = heading.group(1) if heading else fallback
    body = text[: heading.start()] + text[heading.end() :] if heading else text
    paragraphs = [
        " ".join(_HEADING.sub(r"\1.", paragraph).split())
        for paragraph in re.split(r"\n\s*\n", body)
    ]
    return title, list(_pack(piece for p in paragraphs for piece in _cut(p)))


def _cut(paragraph: str) -> Iterator[str]:
    """Cut a long paragraph between sentences, and a long sentence where it must be."""
    for sentence in re.split(r"(?<=[.!?])\s+", paragraph):
        for start in range(0, len(sentence), PASSAGE_CHARACTERS):
            yield sentence[start : start + PASSAGE_CHARACTERS]


def _pack(pieces: Iterator[str]) -> Iterator[str]:
    """Join pieces to passages as long as allowed."""
    passage = ""
    for piece in pieces:
        if passage and len(passage) + 1 + len(piece) > PASSAGE_CHARACTERS:
            yield passage
            passage = ""
        passage = f"{passage} {piece}".strip()
    if passage:
        yield passage
