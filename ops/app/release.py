"""The name of the release that a checkout makes, told without building it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ops.errors import InputError

NOT_SOURCE = {"__pycache__", "build", "dist", "tests", ".venv"}
"""As in the collection's action `python_environment`; a test holds both against each other."""


def source_of(checkout: Path) -> Path:
    """The app's folder in a checkout.

    Raises:
        InputError: It has none.
    """
    source = checkout / "agent_app"
    if not (source / "pyproject.toml").is_file() or not (source / "requirements.lock").is_file():
        raise InputError(
            f"{checkout} has no agent app",
            place="--version-from",
            cure="name a checkout of this repository",
        )
    return source


def release_of(source: Path) -> str:
    """Name the release: the version that the project states, and a digest of lock and source.

    Raises:
        InputError: The project states no version.
    """
    text = (source / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', text, re.M)
    if not found:
        raise InputError("no version is stated", place=str(source / "pyproject.toml"))
    digest = hashlib.sha256((source / "requirements.lock").read_bytes())
    digest.update(_source_digest(source).encode())
    return f"{found[1]}-{digest.hexdigest()[:8]}"


def _source_digest(source: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file() and _is_source(path)):
        digest.update(f"{path.relative_to(source)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _is_source(path: Path) -> bool:
    return not any(part in NOT_SOURCE or part.endswith(".egg-info") for part in path.parts)
