"""The apt repository of a bundle: flat, one folder a distribution, signed by the bundle's key."""

from __future__ import annotations

import datetime
import gzip
import os
from collections.abc import Iterable
from pathlib import Path

from ops.bundle.apt import Archive, Deb
from ops.bundle.signing import Signer
from ops.errors import OpsError
from ops.lab.commands import run
from ops.lab.paths import write_atomically

INDEXES = ("Packages", "Packages.gz", "Release", "InRelease")


def seed(archive: Archive, folder: Path) -> None:
    """Let apt see the packages that an earlier run brought, so that it fetches only the rest."""
    for deb in folder.glob("*.deb"):
        _link(deb, archive.packages / deb.name)


def lay_out(archive: Archive, debs: Iterable[Deb], folder: Path, signer: Signer) -> None:
    """Write packages, indexes and signature; what the archive has no more goes.

    Args:
        archive: Where apt put the packages.
        debs: Those that the repository has.
        folder: The repository.
        signer: Its key; signatures carry the archive's own date, so that they are the same again.

    Raises:
        OpsError: A package did not come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {deb.file: deb for deb in debs}
    for stale in folder.iterdir():
        if stale.name not in wanted:
            stale.unlink()
    for name in wanted:
        if not (archive.packages / name).is_file():
            raise OpsError(f"{name} did not come", place=str(archive.packages), cure="run it again")
        _link(archive.packages / name, folder / name)
    _index(folder)
    _release(folder, archive.distribution.name, archive.moment())
    signer.at(max(signer.moment, archive.moment())).clear(folder / "Release", folder / "InRelease")


def _index(folder: Path) -> None:
    listed = run(["env", "-C", folder, "apt-ftparchive", "packages", "."]).stdout
    stanzas = sorted(filter(str.strip, listed.split("\n\n")))
    text = "".join(f"{each.strip()}\n\n" for each in stanzas).encode()
    write_atomically(folder / "Packages", text)
    write_atomically(folder / "Packages.gz", gzip.compress(text, 6, mtime=0))


def _release(folder: Path, name: str, moment: int) -> None:
    values = {"Origin": "Rackhand bundle", "Label": "Rackhand bundle", "Suite": name}
    values["Architectures"] = "amd64"
    options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in values.items()]
    patterns = "-oAPT::FTPArchive::Release::Default-Patterns=false"
    packages = "-oAPT::FTPArchive::Release::Patterns::=Packages*"
    command: list[str | Path] = [
        "env",
        "-C",
        folder,
        "apt-ftparchive",
        *options,
        patterns,
        packages,
    ]
    text = run([*command, "release", "."]).stdout
    date = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    stamp = f"Date: {date:%a, %d %b %Y %H:%M:%S} UTC"
    lines = [stamp if line.startswith("Date: ") else line for line in text.splitlines()]
    write_atomically(folder / "Release", "\n".join(lines) + "\n")


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
