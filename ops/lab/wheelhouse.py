"""A folder of wheels for our services, so that hosts install it as an air-gapped site would."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from ops.errors import OpsError
from ops.lab import package_index
from ops.lab.chamber import Chamber
from ops.lab.image import Image
from ops.lab.locks import locked
from ops.lab.paths import CACHE, REPOSITORY

HOME = "/srv/wheelhouse"
LOCKS = (
    "agent_app/requirements.lock",
    "ops/gpu_exporter/requirements.lock",
    "ops/requirements.lock",
    "stand_in_engine/requirements.lock",
)
DEV_LOCK = REPOSITORY / "requirements/dev.lock"
DOWNLOAD = """\
set -eu
python3 -m venv /run/venv
for lock in /run/locks/*.lock; do
  /run/venv/bin/pip download -q --no-cache-dir --disable-pip-version-check --no-deps \
    --only-binary :all: --require-hashes -r $lock -d /wheels
done
"""


def ensure(image: Image, say: Callable[[str], None] = lambda _: None) -> Path:
    """Download the wheels that the image's Python needs, unless they are there.

    Args:
        image: The image whose hosts install them; its Python chooses the wheels.
        say: Told what goes on, for a person who waits.

    Returns:
        Their folder here; every host sees it read-only at `HOME`.

    Raises:
        OpsError: A wheel could not be had; the message ends with pip's own words.
    """
    locks = _locks()
    key = hashlib.sha256(repr(sorted(locks.items())).encode()).hexdigest()[:16]
    made = CACHE / "wheelhouse" / f"{key}-{image.suite}"
    if not made.exists():
        with locked(made.with_name(f".{made.name}.lock")):
            if not made.exists():
                say("downloading the wheels of our services")
                _download(image, locks, made)
    return made


def _locks() -> dict[str, str]:
    found = {p.replace("/", "-"): (REPOSITORY / p).read_text() for p in LOCKS if _exists(p)}
    return {**found, "uv.lock": _uv_requirement()}


def _exists(path: str) -> bool:
    return (REPOSITORY / path).is_file()


def _uv_requirement() -> str:
    """uv with its hashes, as the control machine's lock pins it; hosts install by it."""
    found = re.search(r"^uv==(.+\\\n)(\s+--hash=\S+( \\)?\n)+", DEV_LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise OpsError("uv is not pinned", place=str(DEV_LOCK), cure="compile the lock again")
    return found[0]


def _download(image: Image, locks: dict[str, str], made: Path) -> None:
    partial, asked = (made.with_name(f".{made.name}.{kind}") for kind in ("partial", "locks"))
    for folder in (partial, asked):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name, content in locks.items():
        (asked / name).write_text(content)
    chamber = Chamber(
        image=image,
        name=f"wheelhouse-{image.suite}",
        writable={"/wheels": partial},
        readable={"/run/locks": asked, **package_index.folders()},
    )
    log = made.with_name(f"{made.name}.log")
    chamber.run(["sh", "-c", DOWNLOAD], log, package_index.pip_environment())
    partial.rename(made)
    shutil.rmtree(asked)
