"""The files of a folder, and each read by its kind."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from agent_app.errors import InvalidRequest
from agent_app.knowledge.document import Document, Section, Unreadable
from agent_app.knowledge.html import read_html
from agent_app.knowledge.markdown import read_markdown, read_text

_TEXTS: dict[str, Callable[..., Document]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_text,
    ".html": read_html,
    ".htm": read_html,
}
SUFFIXES = frozenset({*_TEXTS, ".pdf"})


def find_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each document's name and file under a folder, or the one file, in a stable order.

    The name is its path within the folder. Hidden files and folders are passed over, and links
    that lead out of the folder: what lies elsewhere was not given to us.

    Raises:
        InvalidRequest: A folder within cannot be read, or went meanwhile: what is in it is unknown,
            and `--prune` would take it for removed.
    """
    if root.is_file():
        yield root.name, root
        return
    home = root.resolve()
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder) / name
            wanted = path.suffix.lower() in SUFFIXES and not name.startswith(".")
            if wanted and path.resolve().is_relative_to(home):
                yield path.relative_to(root).as_posix(), path


def _refuse(error: OSError) -> None:
    raise InvalidRequest(
        f"a folder cannot be read: {error.strerror}",
        place=str(error.filename),
        cure="let the app's user read it, or ingest another folder",
    ) from error


def read_file(content: bytes, *, name: str) -> Document:
    """Return the document that a file holds.

    Args:
        content: Its bytes.
        name: Its path; the suffix tells its kind.

    Raises:
        Unreadable: It holds no text that we can read.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return _read_pdf(content, fallback=path.stem)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start}: convert it with iconv") from error
    if "\0" in text:
        raise Unreadable("holds NUL bytes, so it is no text")
    return _TEXTS[suffix](text, fallback=path.stem)


def _read_pdf(content: bytes, *, fallback: str) -> Document:
    """Return a PDF's text, a section a page; a scanned one has none."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(content))
        title = str((reader.metadata and reader.metadata.title) or "").strip() or fallback
        pages = [page.extract_text().replace("\0", "") for page in reader.pages]
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise Unreadable(f"not a PDF that can be read: {reason[:200]}") from error
    sections = tuple(
        Section((f"page {number}",), text.strip())
        for number, text in enumerate(pages, start=1)
        if text.strip()
    )
    if pages and not sections:
        raise Unreadable("a PDF without text, probably scanned: run OCR over it first")
    return Document(title.replace("\0", ""), sections)
