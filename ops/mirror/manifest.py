"""The manifest of a closed site's mirror, and the copy that it describes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx2

from ops.errors import InputError
from ops.lab.paths import write_atomically
from ops.mirror.closure import Root, close
from ops.mirror.download import TIMEOUT, download, fetcher, is_right
from ops.mirror.repository import File, Offer, Source, read

NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Package:
    """A package to copy, in one exact version."""

    name: str
    version: str
    file: File


@dataclass(frozen=True)
class Repository:
    """A repository's share of the copy."""

    url: str
    key_fingerprint: str
    indexes: tuple[File, ...]
    packages: tuple[Package, ...]

    @property
    def folder(self) -> Path:
        """Its folder in the copy: its address without the scheme."""
        address = urlparse(self.url)
        return Path(address.netloc.replace(":", "_"), address.path.strip("/"))

    def files(self) -> Iterator[File]:
        """Packages first, then indexes: what an index names is there when it is."""
        yield from (package.file for package in self.packages)
        yield from self.indexes


@dataclass(frozen=True)
class Manifest:
    """Everything that a closed site's GPU hosts need from outside.

    Attributes:
        repositories: What to copy.
        from_distribution: Packages that the hosts need besides, from their distribution's mirror.
    """

    repositories: tuple[Repository, ...]
    from_distribution: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for each in self.repositories for file in each.files())

    def render(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def make(sources: list[Source], roots: list[Root]) -> Manifest:
    """Resolve an inventory's wishes against what the repositories have now.

    Args:
        sources: The repositories.
        roots: What is asked for.

    Raises:
        OpsError: A repository cannot be reached or trusted, or lacks what is asked for.
    """
    offers: list[Offer] = []
    indexes: dict[Source, list[File]] = {}
    with httpx2.Client(timeout=TIMEOUT) as client:
        for source in sources:
            indexes[source], found = read(source, fetcher(client))
            offers += found
    chosen, elsewhere = close(roots, offers)
    return Manifest(
        repositories=tuple(
            Repository(
                source.url,
                source.fingerprint,
                tuple(indexes[source]),
                tuple(
                    Package(each.name, each.version, each.file)
                    for each in chosen
                    if each.source == source
                ),
            )
            for source in sources
        ),
        from_distribution=tuple(elsewhere),
    )


def load(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: There is none, or it is not one.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        return Manifest(
            tuple(_repository(each) for each in content["repositories"]),
            tuple(content["from_distribution"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"This is no manifest: {problem}",
            place=str(path),
            cure="ops mirror manifest -i INVENTORY -o manifest.json",
        ) from problem


def sync(manifest: Manifest, folder: Path, say: Callable[[str], None]) -> int:
    """Bring a copy to what a manifest says; what is there and right is left alone.

    Args:
        manifest: What to copy.
        folder: The copy; a web server shows it, each repository at HOST/PATH.
        say: Told each file that is fetched.

    Returns:
        Number of files that were downloaded.

    Raises:
        OpsError: A file cannot be had or is another one; run it again to go on from there.
    """
    fetched = 0
    with httpx2.Client(timeout=TIMEOUT) as client:
        for repository in manifest.repositories:
            for file in repository.files():
                say(f"{file.path}")
                target = folder / repository.folder / file.path
                url = f"{repository.url}/{file.path}"
                fetched += download(client, url, target, file.size, file.sha256)
                _link_by_hash(target, file)
    write_atomically(folder / NAME, manifest.render())
    return fetched


def faults(folder: Path) -> list[str]:
    """Files of a copy that are missing or not what its manifest says.

    Raises:
        InputError: The folder has no manifest.
    """
    return [
        str(repository.folder / file.path)
        for repository in load(folder / NAME).repositories
        for file in repository.files()
        if not is_right(folder / repository.folder / file.path, file.size, file.sha256)
    ]


def _link_by_hash(target: Path, file: File) -> None:
    """Ubuntu's indexes are asked for by their hash (Acquire-By-Hash)."""
    if target.name.startswith("Packages"):
        link = target.parent / "by-hash" / "SHA256" / file.sha256
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(target, link)


def _repository(content: dict[str, Any]) -> Repository:
    return Repository(
        content["url"],
        content["key_fingerprint"],
        tuple(_safe(File(**each)) for each in content["indexes"]),
        tuple(
            Package(each["name"], each["version"], _safe(File(**each["file"])))
            for each in content["packages"]
        ),
    )


def _safe(file: File) -> File:
    """A path that stays inside the copy."""
    if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
        raise ValueError(f"{file.path} leads out of the copy")
    return file
