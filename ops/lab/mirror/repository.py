"""Repositories as apt reads them: Packages indexes, Release files, signatures."""

from __future__ import annotations

import datetime
import fnmatch
import gzip
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ops.lab.commands import run
from ops.lab.mirror import signing
from ops.lab.mirror.catalogue import Damage, Repository
from ops.lab.mirror.package import Package

Stanzas = Mapping[str, str]


def stanzas(folder: Path) -> dict[str, str]:
    """What an index says of each package below a folder, by its path there.

    Args:
        folder: Folder of one repository's packages.
    """
    listed = run(["env", "-C", folder, "apt-ftparchive", "packages", "."]).stdout
    found = {}
    for stanza in filter(None, listed.strip().split("\n\n")):
        name = next(line for line in stanza.splitlines() if line.startswith("Filename: "))
        path = name.removeprefix("Filename: ").removeprefix("./")
        found[path] = stanza.replace(name, f"Filename: {path}")
    return found


def lay_out(
    repository: Repository,
    packages: Iterable[Package],
    described: Stanzas,
    pool: Path,
    target: Path,
    date: datetime.date,
) -> None:
    """Write one repository of one state: files linked from the pool, indexes, signatures.

    Args:
        repository: What it is.
        packages: Its packages in that state.
        described: What `stanzas` says of the pool.
        pool: Folder of the repository's packages of every state.
        target: The repository's folder in the state.
        date: Date of its Release files.
    """
    listed = list(packages)
    for package in {package.path: package for package in listed}.values():
        file = target / package.path
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(pool / package.path, file)
    if not repository.suites:
        target.mkdir(parents=True, exist_ok=True)
        _write_index(target, [described[package.path] for package in listed])
        _release(target, repository, date)
    for suite in repository.suites:
        for component in repository.components:
            folder = target / "dists" / suite / component / "binary-amd64"
            folder.mkdir(parents=True)
            mine = [p for p in listed if suite in p.suites and p.component == component]
            _write_index(folder, [described[package.path] for package in mine])
        _release(target / "dists" / suite, repository, date, suite)


def damage(source: Path, target: Path, damaged: Damage, packages: Iterable[Package]) -> None:
    """Copy a state by hard links and spoil its pool as the catalogue says."""
    run(["cp", "-al", source, target])
    for package in packages:
        file = target / package.repository / package.path
        name = f"{package.name}={package.version}"
        if any(fnmatch.fnmatch(name, pattern) for pattern in damaged.missing):
            file.unlink(missing_ok=True)
        elif package.name in damaged.stale and file.exists():
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content[: len(content) // 2])


def _write_index(folder: Path, entries: list[str]) -> None:
    text = "".join(f"{entry}\n\n" for entry in sorted(entries)).encode()
    (folder / "Packages").write_bytes(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text, 1, mtime=0))


def _release(folder: Path, repository: Repository, date: datetime.date, suite: str = "") -> None:
    values = {"Origin": repository.label, "Label": repository.label, "Architectures": "amd64"}
    if suite:
        values |= {"Suite": suite, "Codename": suite}
        values["Components"] = " ".join(repository.components)
    options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in values.items()]
    text = run(["env", "-C", folder, "apt-ftparchive", *options, "release", "."]).stdout
    stamp = f"{date:%a, %d %b %Y} 06:00:00 UTC"
    lines = [f"Date: {stamp}" if x.startswith("Date: ") else x for x in text.splitlines()]
    release = folder / "Release"
    release.write_text("\n".join(lines) + "\n")
    signing.sign(release, repository.key)
