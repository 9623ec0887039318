"""Bring documents into the knowledge base: each whole or not at all, unchanged ones left alone."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from agent_app.config import Knowledge
from agent_app.errors import InvalidRequest
from agent_app.knowledge.document import Document, Unreadable
from agent_app.knowledge.files import SUFFIXES, find_files, read_file
from agent_app.knowledge.passages import VERSION, cut

# What makes a document new: its bytes, its address, and how passages are made.
_KNOWN = """
SELECT 1 FROM app.knowledge_documents
WHERE collection = %s AND path = %s AND sha256 = %s AND made_with = %s
"""
_DOCUMENT = """
INSERT INTO app.knowledge_documents
    (collection, path, title, url, language, sha256, made_with, bytes)
VALUES (%(collection)s, %(path)s, %(title)s, %(url)s, %(language)s, %(sha256)s, %(made_with)s,
    %(bytes)s)
ON CONFLICT (collection, path) DO UPDATE SET title = excluded.title, url = excluded.url,
    language = excluded.language, sha256 = excluded.sha256, made_with = excluded.made_with,
    bytes = excluded.bytes, ingested_at = now()
RETURNING id
"""
_PASSAGE = """
INSERT INTO app.knowledge_chunks (document_id, position, title, heading, body, words)
VALUES (%(id)s, %(position)s, %(title)s, %(heading)s, %(body)s,
    setweight(to_tsvector(%(language)s::regconfig, %(title)s), 'A')
    || setweight(to_tsvector(%(language)s::regconfig, %(heading)s), 'B')
    || to_tsvector(%(language)s::regconfig, %(body)s))
"""


@dataclass(slots=True)
class Ingested:
    """What an ingest did so far; `failed` has a reason by path."""

    collection: str
    new: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        """Files looked at."""
        return self.new + self.unchanged + len(self.failed)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Wish:
    """What an ingest is asked for.

    Args:
        root: The folder, or one file.
        collection: Where its documents go.
        base_url: Where people read the folder; a document's address is its path after it.
        prune: Remove what the collection has and the folder has not.
    """

    root: Path
    collection: str = "default"
    base_url: str = ""
    prune: bool = False


def ingest(
    connection: psycopg.Connection,
    settings: Knowledge,
    wish: Wish,
    tell: Callable[[Ingested], None] = lambda _done: None,
) -> Ingested:
    """Bring the documents of a folder into a collection.

    Each document is one transaction, so a run that was killed goes on where it was. One that
    cannot be read is told of and passed over; what it was before stays.

    Args:
        connection: As the app's role, autocommit.
        settings: How documents are cut.
        wish: What to bring.
        tell: Told after every document.

    Raises:
        InvalidRequest: There is no document, another ingest of the collection is under way, or
            the language is unknown.
    """
    if wish.prune and not wish.root.is_dir():
        raise InvalidRequest(
            "--prune needs a folder", place=str(wish.root), cure="name the collection's folder"
        )
    _check_language(connection, settings.language)
    done, seen = Ingested(wish.collection), []
    with _alone(connection, wish.collection):
        for path, file in find_files(wish.root):
            seen.append(path)
            try:
                passages = _ingest_file(connection, settings, wish, path, file)
            except (Unreadable, OSError) as error:
                done.failed[path] = str(error)
            else:
                done.new += passages is not None
                done.unchanged += passages is None
                done.passages += passages or 0
            tell(done)
        if not seen:
            kinds = " ".join(f"*{suffix}" for suffix in sorted(SUFFIXES))
            raise InvalidRequest(
                "no documents found", place=str(wish.root), cure=f"name a folder with {kinds}"
            )
        if wish.prune:
            done.removed = _prune(connection, wish.collection, seen)
    return done


def _ingest_file(
    connection: psycopg.Connection, settings: Knowledge, wish: Wish, path: str, file: Path
) -> int | None:
    """Return how many passages a document has, or None where it is as it was."""
    size = file.stat().st_size
    if size > settings.file_bytes:
        raise Unreadable(
            f"{size:,} bytes are more than knowledge.file_bytes, {settings.file_bytes:,}"
        )
    content = file.read_bytes()
    url = wish.base_url and f"{wish.base_url.rstrip('/')}/{quote(path)}"
    digest = hashlib.sha256(content).hexdigest()
    made_with = (
        f"{VERSION} {settings.language} {settings.passage_characters}"
        f" {settings.overlap_characters} {url}".strip()
    )
    if connection.execute(_KNOWN, (wish.collection, path, digest, made_with)).fetchone():
        return None
    document = read_file(content, name=path)
    about = {
        "collection": wish.collection,
        "path": path,
        "title": document.title,
        "url": _address(document.url) or url,
        "language": settings.language,
        "sha256": digest,
        "made_with": made_with,
        "bytes": size,
    }
    return _store(connection, settings, about, document)


def _store(
    connection: psycopg.Connection, settings: Knowledge, about: dict[str, Any], document: Document
) -> int:
    passages = cut(
        document, characters=settings.passage_characters, overlap=settings.overlap_characters
    )
    rows = [
        {
            "position": position,
            "title": document.title,
            "heading": passage.heading,
            "body": passage.text,
            "language": settings.language,
        }
        for position, passage in enumerate(passages)
    ]
    with connection.transaction():
        row = connection.execute(_DOCUMENT, about).fetchone()
        assert row is not None
        connection.execute("DELETE FROM app.knowledge_chunks WHERE document_id = %s", (row[0],))
        connection.cursor().executemany(_PASSAGE, [{**passage, "id": row[0]} for passage in rows])
    return len(rows)


def _address(url: str) -> str:
    """Return what a document says of its address, where it is one that a person can open."""
    return url if url.startswith(("https://", "http://")) else ""


def _prune(connection: psycopg.Connection, collection: str, kept: list[str]) -> int:
    return connection.execute(
        "DELETE FROM app.knowledge_documents WHERE collection = %s AND NOT (path = ANY(%s))",
        (collection, kept),
    ).rowcount


def _check_language(connection: psycopg.Connection, language: str) -> None:
    rows = connection.execute("SELECT cfgname FROM pg_ts_config ORDER BY cfgname").fetchall()
    known = [row[0] for row in rows]
    if language not in known:
        raise InvalidRequest(
            f"PostgreSQL has no text search configuration {language!r}",
            place="knowledge.language",
            cure=f"one of {', '.join(known)}",
        )


@contextmanager
def _alone(connection: psycopg.Connection, collection: str) -> Iterator[None]:
    """Keep a second ingest of the same collection out; the lock goes with the connection."""
    lock = f"agent_app knowledge ingest {collection}"
    row = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (lock,)).fetchone()
    if not (row and row[0]):
        raise InvalidRequest(
            f"another ingest of collection {collection} is under way",
            place=f"collection {collection}",
            cure="wait for it, or end its process",
        )
    try:
        yield
    finally:
        connection.execute("SELECT pg_advisory_unlock(hashtext(%s))", (lock,))
