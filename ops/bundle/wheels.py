"""Wheels of hashed locks for a host's Python, whatever Python runs here.

pip judges markers by the Python that runs it, so it cannot download for another one; the index is
asked here instead, as PEP 691 has it, and a file counts only if the lock has its hash.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlparse

import httpx2

from ops.bundle.distributions import Distribution
from ops.bundle.locks import Pin
from ops.errors import OpsError
from ops.lab import control_machine
from ops.lab.package_index import TORCH_CPU_INDEX

JSON = "application/vnd.pypi.simple.v1+json"
LINK = re.compile(r'<a\b[^>]*href="([^"#]+)(?:#sha256=([0-9a-f]{64}))?"')
OLDEST_GLIBC = 5  # of 2.x: manylinux1
AT_ONCE = 6  # questions to an index
NONE = 1 << 30  # the rank of a wheel that does not run there


@dataclass(frozen=True)
class Wheel:
    """A wheel to bring; `url` may be a local file."""

    name: str
    version: str
    file: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Offer:
    """A file of an index; its size is 0 where the index does not tell."""

    file: str
    url: str
    size: int
    sha256: str


class Indexes:
    """The package indexes that this machine's pip is told.

    Args:
        client: The connection to them.
    """

    def __init__(self, client: httpx2.Client) -> None:
        settings = control_machine.pip_settings()
        self.client = client
        self.folders = [
            control_machine.local_folder(each)
            for each in settings.get("find-links", [])
            if control_machine.is_local(each)
        ]
        extra = [x for x in settings.get("extra-index-url", []) if not control_machine.is_local(x)]
        self.urls = [*(settings.get("index-url") or [_default_index()])[-1:], *extra]
        wheels = [path for folder in self.folders for path in sorted(folder.glob("*.whl"))]
        self.local = [_local(path) for path in wheels]

    def offers(self, pin: Pin) -> Iterator[list[Offer]]:
        """Files that a lock's pin may come as: of local folders, then of each index in turn."""
        yield [offer for offer in self.local if offer.sha256 in pin.hashes]
        for url in [*self.urls, *([TORCH_CPU_INDEX] if pin.version.endswith("+cpu") else [])]:
            listed = self._listed(f"{url.rstrip('/')}/{pin.name}/")
            yield [offer for offer in listed if offer.sha256 in pin.hashes]

    def _listed(self, url: str) -> list[Offer]:
        try:
            answer = self.client.get(
                url, headers={"Accept": f"{JSON}, text/html;q=0.1"}, follow_redirects=True
            )
            if answer.status_code in (403, 404):
                return []
            answer.raise_for_status()
        except httpx2.HTTPError as problem:
            raise OpsError(
                f"The package index cannot be asked: {problem}",
                place=url,
                cure="pip config list shows which index is set; check it and the proxy",
            ) from problem
        base = str(answer.url)
        if answer.headers.get("Content-Type", "").startswith(JSON):
            return [
                Offer(
                    each["filename"],
                    urljoin(base, each["url"]),
                    int(each.get("size") or 0),
                    each["hashes"].get("sha256", ""),
                )
                for each in answer.json()["files"]
            ]
        return [
            Offer(unquote(urlparse(link).path.rpartition("/")[2]), urljoin(base, link), 0, digest)
            for link, digest in LINK.findall(answer.text)
        ]


def tags(distribution: Distribution) -> dict[str, int]:
    """Wheel tags that a distribution's Python on x86-64 takes, the best one first."""
    from packaging.tags import compatible_tags, cpython_tags

    major, newest = distribution.glibc
    platforms = [
        f"manylinux_{major}_{minor}_x86_64" for minor in range(newest, OLDEST_GLIBC - 1, -1)
    ]
    old = {17: "manylinux2014_x86_64", 12: "manylinux2010_x86_64", 5: "manylinux1_x86_64"}
    for minor, name in old.items():
        platforms.insert(platforms.index(f"manylinux_2_{minor}_x86_64") + 1, name)
    platforms.append("linux_x86_64")
    python = distribution.python
    interpreter = "cp{}{}".format(*python)
    found = [*cpython_tags(python, platforms=platforms)]
    found += compatible_tags(python, interpreter, platforms)
    return {str(tag): rank for rank, tag in reversed(list(enumerate(found)))}


def choose(indexes: Indexes, pins: Iterable[Pin], distribution: Distribution) -> list[Wheel]:
    """The best wheel of each pin.

    Raises:
        OpsError: A pin has no wheel for that Python, or an index cannot be asked.
    """
    ranks = tags(distribution)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda pin: _wheel(indexes, pin, ranks, distribution), pins))


def _wheel(indexes: Indexes, pin: Pin, ranks: dict[str, int], distribution: Distribution) -> Wheel:
    for offers in indexes.offers(pin):  # the next source is asked only where none before has it
        ranked = [(_rank(offer.file, ranks), offer.file, offer) for offer in offers]
        rank, _, found = min(ranked, key=lambda each: each[:2], default=(NONE, "", None))
        if rank < NONE and found is not None:
            break
    else:
        raise OpsError(
            f"{pin.name} {pin.version} has no wheel for {distribution.name} that its lock knows",
            place=", ".join([*map(str, indexes.folders), *indexes.urls]),
            cure="check pip's index settings (pip config list), or lock another version",
        )
    size = found.size or _size(indexes.client, found.url)
    return Wheel(pin.name, pin.version, found.file, found.url, size, found.sha256)


def _rank(file: str, ranks: dict[str, int]) -> int:
    return min((ranks[tag] for tag in _tags(file) if tag in ranks), default=NONE)


def _tags(file: str) -> list[str]:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        return [str(tag) for tag in parse_wheel_filename(file)[3]]
    except InvalidWheelFilename:
        return []


def _size(client: httpx2.Client, url: str) -> int:
    try:
        answer = client.head(url, follow_redirects=True).raise_for_status()
    except httpx2.HTTPError as problem:
        raise OpsError(f"Not to be had: {problem}", place=url) from problem
    return int(answer.headers.get("Content-Length", 0))


def _local(path: Path) -> Offer:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Offer(path.name, path.resolve().as_uri(), path.stat().st_size, digest)


def _default_index() -> str:
    """pip's own default."""
    known: Any = importlib.import_module("pip._internal.models.index")
    return str(known.PyPI.simple_url)
