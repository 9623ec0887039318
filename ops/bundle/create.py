"""Make a bundle, or go on with one: everything is fetched, then described, and signed last."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from ops.bundle import licences, repository
from ops.bundle.contents import CONTROL_LOCK, WORK, Contents, Item, Site, entries
from ops.bundle.signing import Signer
from ops.bundle.verification import FORMAT, KEY, MANIFEST, SIGNATURE, dearmored
from ops.errors import InputError, OpsError
from ops.lab.commands import run
from ops.lab.paths import write_atomically
from ops.mirror import manifest as mirror
from ops.mirror.download import TIMEOUT, download
from ops.places import ROOT

TREE = "rackhand.tar.gz"
KEYRING = "key.gpg"  # the key as gpgv takes it
SPARE = 1 << 28  # bytes left free
AT_ONCE = 4  # downloads
POLL = 0.3  # seconds between looks at what apt has fetched
EPOCH = 1_700_000_000  # of files in the tree's archive: a zip, as a wheel is, begins in 1980

Advance = Callable[[int], None]
Say = Callable[[str], None]


def require_place(folder: Path) -> None:
    """Refuse to write among files that are no bundle's.

    Raises:
        InputError: The folder has something else in it.
    """
    known = {MANIFEST, SIGNATURE, KEY, WORK, "apt", "wheels"}
    if folder.exists() and not folder.is_dir():
        raise InputError("This is no folder", place=str(folder))
    if folder.is_dir() and any(folder.iterdir()) and not {p.name for p in folder.iterdir()} & known:
        raise InputError(
            "The folder holds something else than a bundle",
            place=str(folder),
            cure="name an empty folder, or one that does not exist",
        )


def missing_bytes(contents: Contents, folder: Path) -> int:
    """Bytes that are still to come."""
    have = [item.size for item in contents.items if is_right_size(folder / item.path, item.size)]
    have += [
        deb.size
        for site in contents.sites
        for deb in site.debs
        if is_right_size(folder / site.folder / deb.file, deb.size)
        or is_right_size(site.archive.packages / deb.file, deb.size)
    ]
    return contents.size - sum(have)


def is_right_size(path: Path, size: int) -> bool:
    """Whether a file has its bytes; what it holds is checked when it is used."""
    return path.is_file() and path.stat().st_size == size


def require_space(contents: Contents, folder: Path) -> None:
    """Stop before the disk is full.

    Raises:
        OpsError: What is still to come does not fit.
    """
    place = folder
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free, missing_bytes(contents, folder)
    if free < needed + SPARE:
        raise OpsError(
            f"The bundle needs {needed / 1e9:.2f} GB more, the disk has {free / 1e9:.2f} GB",
            place=str(place),
            cure="free space, or name a folder on another disk; what was fetched is kept",
        )


def carry_out(
    contents: Contents, folder: Path, signer: Signer, say: Say, advance: Advance
) -> dict[str, Any]:
    """Fetch, describe and sign.

    Args:
        contents: What to bring.
        folder: The bundle; a run that was killed at any instant is taken up by the next.
        signer: The key.
        say: Told each step.
        advance: Told bytes as they come.

    Returns:
        The manifest.

    Raises:
        OpsError: Something could not be had; run it again to go on from there.
    """
    require_space(contents, folder)
    for name in (SIGNATURE, MANIFEST):  # from here on it is incomplete, and says so
        (folder / name).unlink(missing_ok=True)
    for site in contents.sites:
        say(f"fetching packages of {site.archive.distribution.name}")
        fetch_packages(site, folder, signer, advance)
    say("fetching wheels and weights")
    fetch_items(contents.items, folder, advance)
    for each in contents.mirrors:
        say("copying the repositories of drivers")
        mirror.sync(each, folder / "mirror", lambda _path: None)
    keep_keys(contents, folder)
    say("packing Rackhand itself")
    write_atomically(folder / TREE, tree())
    write_atomically(folder / KEY, signer.public())
    write_atomically(folder / KEYRING, dearmored(signer.public().encode()))
    write_atomically(folder / CONTROL_LOCK, contents.control_lock)
    write_atomically(folder / "wheels/index.html", index(contents))
    say("describing and signing it")
    sweep(contents, folder)
    made = describe(contents, folder)
    write_atomically(folder / MANIFEST, json.dumps(made, indent=1, sort_keys=True) + "\n")
    moment = max([signer.moment, *(site.archive.moment() for site in contents.sites)])
    candidate = folder / WORK / SIGNATURE
    signer.at(moment).apart(folder / MANIFEST, candidate)
    candidate.replace(folder / SIGNATURE)
    shutil.rmtree(folder / WORK)
    return made


def fetch_packages(site: Site, folder: Path, signer: Signer, advance: Advance) -> None:
    """Bring a distribution's packages and make its repository."""
    repository.seed(site.archive, folder / site.folder)
    wanted = {deb.file for deb in site.debs}
    with watched(site.archive.packages, wanted, advance):
        site.archive.fetch(site.packages)
    repository.lay_out(site.archive, site.debs, folder / site.folder, signer)


@contextmanager
def watched(place: Path, wanted: set[str], advance: Advance) -> Iterator[None]:
    """Tell how many bytes of the wanted files have come while apt fetches them."""
    done = threading.Event()

    def look() -> None:
        before = 0
        while True:
            ended = done.is_set()
            now = sum(size(place / name) or size(place / "partial" / name) for name in wanted)
            advance(now - before)
            before = now
            if ended:
                return
            time.sleep(POLL)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def size(path: Path) -> int:
    """Bytes of a file that may go away meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def fetch_items(items: list[Item], folder: Path, advance: Advance) -> None:
    """Bring wheels and weights, several at once."""
    from ops.bundle.weights import headers

    def fetch(item: Item) -> None:
        client = hub if item.kind == "weights" else plain
        download(client, item.url, folder / item.path, item.size, item.sha256)
        advance(item.size)

    with (
        httpx2.Client(timeout=TIMEOUT) as plain,
        httpx2.Client(timeout=TIMEOUT, headers=headers()) as hub,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        list(pool.map(fetch, items))


def keep_keys(contents: Contents, folder: Path) -> None:
    """Bring the keys of repositories that are copied as they are."""
    for each in repositories(contents):
        target, source = folder / each["key"], contents.keys[each["url"]]
        target.parent.mkdir(exist_ok=True)
        if source.read_bytes().startswith(b"-----BEGIN"):
            shutil.copyfile(source, target)
        else:
            armoured = run(["gpg", "--enarmor", "--output", "-", source]).stdout
            text = armoured.replace("PGP ARMORED FILE", "PGP PUBLIC KEY BLOCK")
            write_atomically(target, text)


def tree() -> bytes:
    """Rackhand's own files as git knows them, as an archive that is the same again.

    Raises:
        OpsError: This is no git checkout.
    """
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached"], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise OpsError(
            "Rackhand's own files cannot be listed", place=str(ROOT), cure="use a git checkout"
        )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(filter(None, done.stdout.decode().split("\0"))):
            path = ROOT / name
            if not path.is_symlink() and not path.is_file():
                continue
            info = archive.gettarinfo(path, arcname=f"rackhand/{name}")
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = EPOCH
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            if info.issym():
                archive.addfile(info)
            else:
                info.type = tarfile.REGTYPE
                archive.addfile(info, io.BytesIO(path.read_bytes()))
    return gzip.compress(packed.getvalue(), 6, mtime=0)


def index(contents: Contents) -> str:
    """A page of links, as pip's and uv's --find-links read it from any web server."""
    names = sorted(Path(item.path).name for item in contents.items if item.kind == "wheel")
    links = [f'<a href="{quote(name)}">{escape(name)}</a><br>' for name in names]
    return "<!doctype html>\n<title>Wheels</title>\n" + "\n".join(links) + "\n"


def sweep(contents: Contents, folder: Path) -> None:
    """Remove what an earlier state of the bundle had and this one has not."""
    wanted = {item.path for item in contents.items}
    wanted |= {f"{s.folder}/{name}" for s in contents.sites for name in repository.INDEXES}
    wanted |= {f"{s.folder}/{deb.file}" for s in contents.sites for deb in s.debs}
    wanted |= {TREE, KEY, KEYRING, CONTROL_LOCK, "wheels/index.html"}
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] in (WORK, "mirror", "keys"):
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in wanted:
            path.unlink()


def describe(contents: Contents, folder: Path) -> dict[str, Any]:
    """The manifest: every file with its bytes, checksum and origin."""
    known = entries(contents.items)
    for site in contents.sites:
        for deb in site.debs:
            known[f"{site.folder}/{deb.file}"] = {
                "kind": "apt", "name": deb.name, "version": deb.version, "origin": deb.url,
            }  # fmt: skip
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.split("/")[0] == WORK:
            continue
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entry = {"path": name, "size": path.stat().st_size, "sha256": digest}
        entry |= known.get(name, {"kind": "bundle"})
        if name.startswith("wheels/") and name.endswith(".whl"):
            entry["licence"] = licences.of_wheel(path)
        files.append(entry)
    return {
        "format": FORMAT,
        "hosts": contents.needs.hosts,
        "models": [vars(model) for model in contents.needs.weights],
        "repositories": repositories(contents),
        "containers": [],  # no role asks for an image
        "left_out": contents.left_out,
        "untold": sorted(contents.needs.untold),
        "files": files,
    }


def repositories(contents: Contents) -> list[dict[str, str]]:
    """The copied repositories: where each lies, and the fingerprint of its key."""
    return [
        {
            "url": each.url,
            "kind": kind(each.url),
            "path": f"mirror/{each.folder.as_posix()}",
            "key": f"keys/{each.folder.as_posix().replace('/', '_')}.asc",
            "fingerprint": each.key_fingerprint,
        }
        for made in contents.mirrors
        for each in made.repositories
    ]


def pack(folder: Path, target: Path) -> None:
    """Put a bundle into one tar archive; the same bundle gives the same archive."""
    part = target.with_name(f".{target.name}.part")
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        names = [path for path in folder.rglob("*") if path.is_file()]
        first = {MANIFEST: 0, SIGNATURE: 0, KEY: 0}
        for path in sorted(names, key=lambda p: (first.get(p.name, 1), p)):
            info = archive.gettarinfo(path, arcname=path.relative_to(folder).as_posix())
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime, info.mode = EPOCH, 0o644
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
            with path.open("rb") as stream:
                archive.addfile(info, stream)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(target)


def remove(folder: Path) -> None:
    """Remove a folder that was packed."""
    shutil.rmtree(folder)


def kind(url: str) -> str:
    """What a repository of the GPU layer has, by its address: as `site.drivers` asks."""
    if "libnvidia-container" in url:
        return "container-toolkit"
    return "cuda" if "cuda" in url else "ubuntu"
