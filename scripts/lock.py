#!/usr/bin/env python3
"""Write the lock files anew from each pyproject.toml; what is pinned stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys

import bootstrap

COMPILE = ("pip", "compile", "-q", "--no-header", "--universal", "--generate-hashes")
DEV, APP = "requirements/dev.lock", "agent_app/requirements.lock"
EXPORTER = "ops/gpu_exporter/requirements.lock"
REMEDIATOR = "ops/requirements.lock"


def public(settings: dict[str, str]) -> dict[str, str]:
    """Settings without folders of this machine.

    Those have files for its own Python only, and an index that knows a package hides the others:
    the lock would lack the hashes that hosts with another Python need.
    """
    indexes = [url for url in settings.get("UV_INDEX", "").split() if not url.startswith("file:")]
    kept = {key: value for key, value in settings.items() if key != "UV_FIND_LINKS"}
    return kept | {"UV_INDEX": " ".join(indexes)}


def main() -> int:
    """Compile the locks for Python 3.11 and newer; services take the control machine's pins."""
    settings = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    environment = {
        **public(bootstrap.uv_settings(settings.stdout)),
        "UV_CACHE_DIR": str(bootstrap.CACHE / "uv"),
        **os.environ,
    }
    uv = [str(bootstrap.VENV / "bin/uv"), *COMPILE, "--python-version", "3.11"]
    for arguments in (
        ["--extra", "dev", "pyproject.toml", "agent_app/pyproject.toml", "-o", DEV],
        ["-c", DEV, "agent_app/pyproject.toml", "-o", APP],
        ["-c", DEV, "ops/gpu_exporter/pyproject.toml", "-o", EXPORTER],
        ["-c", DEV, "ops/pyproject.toml", "-o", REMEDIATOR],
    ):
        subprocess.run([*uv, *arguments], check=True, env=environment, cwd=bootstrap.ROOT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
