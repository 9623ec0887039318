"""Environments of what we compare with: built once from hashed locks, outside our own.

They lie in the cache (`RACKHAND_CACHE`), each under the hash of its lock. To move a version,
change the `.in` file and run `python tests/bench/competitors/environments.py lock`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from ops.lab.locks import locked
from ops.lab.package_index import uv_environment
from ops.lab.paths import CACHE

HERE = Path(__file__).parent
NAMES = ("litellm", "nvitop", "recipe")


def python_of(name: str) -> Path:
    """Return the interpreter of a competitor's environment, built unless it is there."""
    lock = HERE / f"{name}.lock"
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    made = CACHE / "bench" / f"{name}-{key}"
    if not (made / ".complete").exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with locked(made.with_name(f".{made.name}.lock")):
            if not (made / ".complete").exists():
                _build(made, lock)
    return made / "bin/python"


def _build(made: Path, lock: Path) -> None:
    shutil.rmtree(made, ignore_errors=True)
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(made)], check=True)
    subprocess.run(
        [uv, "pip", "sync", "-q", "--require-hashes", "--compile-bytecode", str(lock)],
        check=True,
        env={**_environment(), "VIRTUAL_ENV": str(made)},
    )
    (made / ".complete").touch()


def _environment() -> dict[str, str]:
    return {**os.environ, "UV_CACHE_DIR": str(CACHE / "uv"), **uv_environment()}


def lock() -> None:
    """Write the lock files anew."""
    for name in NAMES:
        subprocess.run(
            [find_uv_bin(), "pip", "compile", "-q", "--no-header", "--generate-hashes",
             "--python-version", "3.11", f"{name}.in", "-o", f"{name}.lock"],
            check=True, cwd=HERE, env=_environment(),
        )  # fmt: skip


if __name__ == "__main__" and sys.argv[1:] == ["lock"]:
    lock()
