"""Prove that a bundle is whole, unchanged and signed by a known key.

Standard library and gpgv alone: it runs on a closed control machine before anything is installed
there (scripts/bootstrap.py does it, and `python3 -m ops.bundle.verification PATH`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ops.errors import InputError, OpsError

MANIFEST, SIGNATURE, KEY = "manifest.json", "manifest.json.asc", "key.asc"
FORMAT = 1
CHUNK = 1 << 20  # bytes
FINGERPRINT = re.compile(r"[0-9A-Fa-f]{40}")
ARMOR = re.compile(
    r"-----BEGIN PGP [A-Z ]+-----\r?\n(?:.+\n)*?\r?\n(.*?)\r?\n(?:=.{4}\r?\n)?-----END", re.S
)

Say = Callable[[str, int], None]


@dataclass(frozen=True)
class Verified:
    """What was proved.

    Attributes:
        manifest: The manifest, once its signature held.
        fingerprint: Of the key that signed.
        known: Whether the caller named that key; otherwise the bundle's own was taken.
        faults: Files that are not what the manifest says, each with what is wrong.
    """

    manifest: dict[str, Any]
    fingerprint: str
    known: bool
    faults: tuple[str, ...]


def verify(bundle: Path, key: str = "", say: Say = lambda _path, _size: None) -> Verified:
    """Check signature, sizes and checksums of a bundle, a folder or a tar of one.

    Args:
        bundle: The folder or the `.tar`.
        key: Fingerprint of the key that must have signed, or a file with it; empty takes the
            bundle's own, which proves no more than that nothing broke on the way.
        say: Told each file and its bytes once it is checked.

    Raises:
        InputError: There is no bundle, or the key is no key.
        OpsError: The signature is not by that key.
    """
    read = _reader(bundle)
    manifest_text, signature = read(MANIFEST), read(SIGNATURE)
    if manifest_text is None or signature is None:
        raise InputError(
            "This is no complete bundle: it has no signed manifest",
            place=str(bundle),
            cure="ops bundle create goes on where it stopped",
        )
    fingerprint = _signed_by(manifest_text, signature, _key_text(bundle, key, read), bundle)
    if FINGERPRINT.fullmatch(key.replace(" ", "")) and fingerprint != key.replace(" ", "").upper():
        raise OpsError(
            f"The bundle is signed by {fingerprint}, not by {key}",
            place=str(bundle),
            cure="ask who made the bundle for the fingerprint, by another way than the bundle's",
        )
    manifest = _manifest(manifest_text, bundle)
    return Verified(manifest, fingerprint, bool(key), tuple(_faults(bundle, manifest, say)))


def _key_text(bundle: Path, key: str, read: Callable[[str], bytes | None]) -> bytes:
    if key and not FINGERPRINT.fullmatch(key.replace(" ", "")):
        if not Path(key).is_file():
            raise InputError("This is neither a fingerprint nor the file of a key", place=key)
        return Path(key).read_bytes()
    own = read(KEY)
    if own is None:
        raise InputError(f"The bundle has no {KEY}", place=str(bundle), cure="name it: --key FILE")
    return own


def _signed_by(text: bytes, signature: bytes, key: bytes, bundle: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="rackhand-verify-") as folder:
        paths = [Path(folder, name) for name in ("key.gpg", "signature", "text")]
        for path, content in zip(paths, (dearmored(key), signature, text), strict=True):
            path.write_bytes(content)
        done = subprocess.run(
            ["gpgv", "--homedir", folder, "--status-fd", "1", "--keyring", *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
        )
    valid = re.search(r"VALIDSIG (?:\S+ )*(\S+)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or valid is None:
        raise OpsError(
            "The manifest's signature does not hold",
            place=f"{bundle}/{MANIFEST}: {done.stderr.strip().splitlines()[-1:]}",
            cure="the bundle was changed, or another key signed it: fetch it again",
        )
    return valid[1]


def dearmored(key: bytes) -> bytes:
    """An OpenPGP key as gpgv takes it.

    Raises:
        InputError: It is no key.
    """
    if not key.startswith(b"-----BEGIN"):
        return key
    found = ARMOR.search(key.decode("ascii", "replace"))
    if found is None:
        raise InputError("This is no armoured OpenPGP key", cure="gpg --armor --export gives one")
    return base64.b64decode("".join(found[1].split()))


def _manifest(text: bytes, bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text)
    if content.get("format") != FORMAT:
        raise InputError(
            f"The bundle is of format {content.get('format')}, this Rackhand reads {FORMAT}",
            place=str(bundle),
            cure="use the Rackhand that the bundle brings",
        )
    return content


def _faults(bundle: Path, manifest: dict[str, Any], say: Say) -> Iterator[str]:
    wanted = {entry["path"]: entry for entry in manifest["files"]}
    seen = set()
    for path, size, stream in _files(bundle):
        if path in (MANIFEST, SIGNATURE):
            continue
        entry = wanted.get(path)
        seen.add(path)
        if entry is None:
            yield f"{path}: not in the manifest"
        elif size != entry["size"]:
            yield f"{path}: {size} bytes instead of {entry['size']}"
        elif _sha256(stream) != entry["sha256"]:
            yield f"{path}: another content"
        say(path, size)
    for path in sorted(wanted.keys() - seen):
        yield f"{path}: missing"


def _files(bundle: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Path, bytes and content of every file; a link is none, wherever it leads."""
    if bundle.is_dir():
        for path in sorted(bundle.rglob("*")):
            name = path.relative_to(bundle).as_posix()
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as stream:
                    yield name, path.stat().st_size, stream
            elif path.is_symlink():
                with tempfile.TemporaryFile() as nothing:
                    yield name, -1, nothing
        return
    with tarfile.open(bundle) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                yield PurePosixPath(member.name).as_posix(), member.size, content


def _reader(bundle: Path) -> Callable[[str], bytes | None]:
    if bundle.is_dir():
        return lambda name: (bundle / name).read_bytes() if (bundle / name).is_file() else None
    if not bundle.is_file():
        raise InputError(
            "There is no bundle", place=str(bundle), cure="ops bundle create makes one"
        )
    if not tarfile.is_tarfile(bundle):
        raise InputError("This is neither a folder nor a tar archive", place=str(bundle))
    wanted = (MANIFEST, SIGNATURE, KEY)
    with tarfile.open(bundle) as archive:
        found = {m.name: archive.extractfile(m) for m in archive if m.name in wanted}
        texts = {name: stream.read() for name, stream in found.items() if stream is not None}
    return texts.get


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def main(arguments: list[str]) -> int:
    """Verify the bundle of the first argument, by the key of the second."""
    try:
        proved = verify(Path(arguments[0]), arguments[1] if arguments[1:] else "")
    except OpsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for fault in proved.faults:
        print(fault)
    print(f"{len(proved.manifest['files'])} files, signed by {proved.fingerprint}")
    return 1 if proved.faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
