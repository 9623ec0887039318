"""A local folder of documents as a tar, packed while it is sent."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ops.agent.command import SUFFIXES
from ops.errors import InputError


def find_documents(root: Path) -> list[tuple[str, Path]]:
    """Return the documents under a folder, or the one file, by their path within it.

    Hidden files and folders stay here, and links that lead out of the folder.

    Raises:
        InputError: There is none.
    """
    found = list(_walk(root))
    if not found:
        kinds = " ".join(f"*{suffix}" for suffix in sorted(SUFFIXES))
        raise InputError(
            "there is no document to ingest", place=str(root), cure=f"name a folder with {kinds}"
        )
    return found


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        yield root.name, root
    home = root.resolve()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder) / name
            wanted = path.suffix.lower() in SUFFIXES and not name.startswith(".")
            if wanted and path.is_file() and path.resolve().is_relative_to(home):
                yield path.relative_to(root).as_posix(), path


@dataclass
class _Blocks:
    """What tarfile writes, until it is taken away."""

    held: list[bytes] = field(default_factory=list)

    def write(self, block: bytes) -> int:
        self.held.append(bytes(block))
        return len(block)

    def take(self) -> Iterator[bytes]:
        held, self.held = self.held, []
        yield from held


def pack(documents: list[tuple[str, Path]]) -> Iterator[bytes]:
    """Yield a tar of documents, one file in memory at a time; owner, mode and time stay here.

    Raises:
        InputError: A file cannot be read, or became shorter meanwhile.
    """
    blocks = _Blocks()
    with tarfile.open(mode="w|", fileobj=blocks) as archive:  # type: ignore[call-overload]
        for name, path in documents:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o600
            try:
                with path.open("rb") as content:
                    entry.size = os.fstat(content.fileno()).st_size
                    archive.addfile(entry, content)
            except OSError as error:
                raise InputError(
                    f"a document cannot be read: {error.strerror or error}",
                    place=str(path),
                    cure="correct that file, and run it again",
                ) from error
            yield from blocks.take()
    yield from blocks.take()
