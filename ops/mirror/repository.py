"""One apt repository, read as apt reads it: the signature first, then only what it vouches for."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ops.errors import InputError, OpsError
from ops.lab.commands import run
from ops.mirror.download import Fetch

UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    "": bytes,
}
LISTED = re.compile(r"^ ([0-9a-f]{64}) +(\d+) (\S+)$", re.MULTILINE)
FIELD = re.compile(r"^([A-Za-z0-9-]+): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """Where packages come from.

    Attributes:
        url: The repository, without a slash at its end.
        key_file: The public key that signs it, binary or in ASCII armour.
        fingerprint: That key's, or nothing where the file alone is trusted.
        suites: Its suites; none for a flat repository.
        components: Its components, where it has suites.
    """

    url: str
    key_file: Path
    fingerprint: str = ""
    suites: tuple[str, ...] = ()
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A file of a repository: its path below the repository, bytes and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Offer:
    """A package that a repository has, in one version."""

    source: Source
    name: str
    version: str
    depends: str
    provides: tuple[str, ...]
    component: str
    file: File


def read(source: Source, fetch: Fetch) -> tuple[list[File], list[Offer]]:
    """Read a repository's indexes.

    Args:
        source: The repository.
        fetch: Gets the content of an address.

    Returns:
        The index files that a copy needs, and every package for amd64.

    Raises:
        InputError: The key is not there, or is another one than the inventory says.
        OpsError: A signature or checksum is wrong, or a file could not be had.
    """
    files: list[File] = []
    offers: list[Offer] = []
    for suite in source.suites or ("",):
        folder = f"dists/{suite}/" if suite else ""
        signed = fetch(f"{source.url}/{folder}InRelease")
        files.append(_file(f"{folder}InRelease", signed))
        listed = {path: (d, int(n)) for d, n, path in LISTED.findall(_verified(source, signed))}
        for component in source.components if suite else ("",):
            path = f"{component}/binary-amd64/Packages" if component else "Packages"
            file, text = _index(source, folder, path, listed, fetch)
            files.append(file)
            offers += _offers(source, component, text)
    return files, offers


def _verified(source: Source, signed: bytes) -> str:
    """The words that the key signed."""
    if not source.key_file.is_file():
        raise InputError(
            f"The key of {source.url} is not there",
            place=str(source.key_file),
            cure="name its file in the inventory: nvidia_cuda_repo_key_file and its like",
        )
    with tempfile.TemporaryDirectory() as folder:
        keyring, message, content = (Path(folder, name) for name in ("key", "InRelease", "Release"))
        message.write_bytes(signed)
        key = source.key_file.read_bytes()
        keyring.write_bytes(key)
        if key.startswith(b"-----BEGIN"):
            gpg = ["gpg", "--homedir", folder, "--batch", "--yes", "--output", str(keyring)]
            run([*gpg, "--dearmor", str(source.key_file)])
        gpgv = ["gpgv", "--homedir", folder, "--status-fd", "1", "--keyring", str(keyring)]
        done = run([*gpgv, "--output", str(content), str(message)], check=False)
        if done.returncode != 0:
            raise OpsError(
                f"The signature of {source.url} is not by the key of {source.key_file.name}",
                place=f"{source.url}: {done.stderr.strip().splitlines()[-1]}",
                cure="get the repository's present key from its owner, and compare fingerprints",
            )
        valid = re.findall(r"VALIDSIG (?:\S+ )*(\S+)$", done.stdout, re.MULTILINE)
        wanted = source.fingerprint.replace(" ", "").upper()
        if wanted and wanted not in valid:
            raise InputError(
                f"{source.url} is signed by {', '.join(valid)}, not by {wanted}",
                place=str(source.key_file),
                cure="correct the key file or its fingerprint in the inventory",
            )
        return content.read_text()


def _index(
    source: Source, folder: str, path: str, listed: dict[str, tuple[str, int]], fetch: Fetch
) -> tuple[File, str]:
    for ending, unpack in UNPACK.items():
        if path + ending not in listed:
            continue
        digest, size = listed[path + ending]
        data = fetch(f"{source.url}/{folder}{path}{ending}")
        if (hashlib.sha256(data).hexdigest(), len(data)) != (digest, size):
            raise OpsError(
                f"{path}{ending} is not the file that its Release names",
                place=source.url,
                cure="the mirror is in mid-sync: try again in some minutes",
            )
        return _file(f"{folder}{path}{ending}", data), unpack(data).decode()
    raise OpsError(f"The repository has no {path}", place=f"{source.url}/{folder}InRelease")


def _file(path: str, data: bytes) -> File:
    return File(path, len(data), hashlib.sha256(data).hexdigest())


def _offers(source: Source, component: str, text: str) -> Iterator[Offer]:
    for stanza in filter(str.strip, text.split("\n\n")):
        fields = dict(FIELD.findall(stanza))
        if fields.get("Architecture") in {"amd64", "all"}:
            provides = [each.split()[0] for each in fields.get("Provides", "").split(",") if each]
            path = fields["Filename"].removeprefix("./")
            yield Offer(
                source=source,
                name=fields["Package"],
                version=fields["Version"],
                depends=", ".join(
                    fields[key] for key in ("Pre-Depends", "Depends") if fields.get(key)
                ),
                provides=tuple(provides),
                component=component,
                file=File(path, int(fields["Size"]), fields["SHA256"]),
            )
