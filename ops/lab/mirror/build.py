"""Build the mirror: every package, and every state of every repository, keyed by content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.lab.commands import run
from ops.lab.gpu import build as gpu_build
from ops.lab.locks import locked
from ops.lab.mirror import catalogue, package, repository, signing
from ops.lab.paths import CACHE

MADE_FROM = Path(__file__).parent
EVERYTHING_ELSE = (Path(gpu_build.__file__), gpu_build.SOURCE)


def folder() -> Path:
    """The mirror's folder in the cache; it exists once the mirror is complete."""
    digest = hashlib.sha256()
    for root in (MADE_FROM, *EVERYTHING_ELSE, *map(signing.public_key, signing.OWNERS)):
        for path in sorted([root, *root.rglob("*")]):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return CACHE / "mirror" / digest.hexdigest()[:16]


def ensure(say: Callable[[str], None] = lambda _: None) -> Path:
    """Build the mirror unless it is there.

    Args:
        say: Told what goes on, for a person who waits.

    Returns:
        Its folder: one folder per state, as `outside` serves it.

    Raises:
        OpsError: A program failed; the message carries its words.
    """
    signing.ensure_keys()
    made = folder()
    if not made.exists():
        with locked(made.with_name(f".{made.name}.lock")):
            if not made.exists():
                say("building the package mirror")
                partial = made.with_name(f".{made.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                _build(partial)
                partial.rename(made)
    return made


def find(made: Path, name: str, version: str) -> Path:
    """A package's file in the mirror, whatever state it belongs to."""
    return next((made / "pool").rglob(f"{name}_{version}_amd64.deb"))


def _build(made: Path) -> None:
    everything = catalogue.load()
    pool = made / "pool"
    paths = list(everything.repositories)
    for path in paths:
        (pool / path).mkdir(parents=True)
    _build_packages(everything, pool, made / "scratch")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        folders = [pool / path for path in paths]
        described = dict(zip(paths, threads.map(repository.stanzas, folders), strict=True))
    for state, date in everything.states.items():
        for path, one in everything.repositories.items():
            mine = [p for p in everything.packages if p.repository == path and state in p.states]
            repository.lay_out(one, mine, described[path], pool / path, made / state / path, date)
        (made / state / "keys").mkdir()
        for owner in signing.OWNERS:
            shutil.copy(signing.public_key(owner), made / state / "keys")
    for state, damaged in everything.damaged.items():
        source = made / damaged.indexes_of
        repository.damage(source, made / state, damaged, everything.packages)
    signing.stop_agent()


def _build_packages(everything: catalogue.Catalogue, pool: Path, scratch: Path) -> None:
    files = {pool / p.repository / p.path: p for p in everything.packages}

    def build(numbered: tuple[int, Path]) -> None:
        number, target = numbered
        package.build(files[target], everything.contents, scratch / str(number), target)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(build, enumerate(files)))
    run(["rm", "-rf", scratch])
