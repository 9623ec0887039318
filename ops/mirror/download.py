"""Download over HTTP: whole small files, and large ones that go on where they stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlparse

import httpx2

from ops.errors import OpsError

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20  # bytes

Fetch = Callable[[str], bytes]


def fetcher(client: httpx2.Client) -> Fetch:
    """What gets the content of an address, or says why it cannot be had."""

    def fetch(url: str) -> bytes:
        try:
            return client.get(url, follow_redirects=True).raise_for_status().content
        except httpx2.HTTPError as problem:
            raise _unreachable(url, problem) from problem

    return fetch


def download(client: httpx2.Client, url: str, target: Path, size: int, sha256: str) -> bool:
    """Get a file unless it is there; a part that an earlier run left is continued.

    Args:
        client: The connection.
        url: Its address; `file:` for one of this machine.
        target: Its place; it appears there only when it is whole and right.
        size: Its bytes.
        sha256: Its digest; empty where nobody tells it beforehand.

    Returns:
        Whether anything was downloaded.

    Raises:
        OpsError: It cannot be had, or it is another file.
    """
    if is_right(target, size, sha256):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    if part.exists() and part.stat().st_size >= size:
        part.unlink()
    try:
        if url.startswith("file:"):
            shutil.copyfile(unquote(urlparse(url).path), part)
        else:
            _continue(client, url, part)
    except httpx2.HTTPError as problem:
        raise _unreachable(url, problem) from problem
    if not is_right(part, size, sha256):
        part.unlink()
        raise OpsError(
            f"{target.name} is not the file that the manifest names",
            place=url,
            cure="the repository has moved on or is in mid-sync: make the manifest anew",
        )
    part.replace(target)
    return True


def is_right(path: Path, size: int, sha256: str) -> bool:
    """Whether a file is there, whole and unchanged; without a digest its bytes are counted."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    if not sha256:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _continue(client: httpx2.Client, url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", url, headers=headers, follow_redirects=True) as answer:
        answer.raise_for_status()
        with part.open(
            "ab" if answer.status_code == httpx2.codes.PARTIAL_CONTENT else "wb"
        ) as file:
            for chunk in answer.iter_bytes(CHUNK):
                file.write(chunk)


def _unreachable(url: str, problem: Exception) -> OpsError:
    return OpsError(f"Not to be had: {problem}", place=url, cure="check the address and the proxy")
