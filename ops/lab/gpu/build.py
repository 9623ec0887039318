"""Compile the simulated GPU's library and `nvidia-smi`: once per content of their sources.

One binary serves every driver version: the library learns its own from the name of its file.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from ops.errors import OpsError
from ops.lab.locks import locked
from ops.lab.paths import CACHE

SOURCE = Path(__file__).with_name("source")
LIBRARY = "libnvidia-ml.so"
PROGRAM = "nvidia-smi"
# glibc of Debian 11: what is linked against it runs on every later release, whatever this machine's
TARGET = "x86_64-linux-gnu.2.31"
FLAGS = (
    "-target",
    TARGET,
    "-std=gnu17",
    "-D_GNU_SOURCE",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-s",
)
SHARED = (
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    f"-Wl,-soname,{LIBRARY}.1",
    "-lpthread",
    "-ldl",
)


def build(version: str, target: Path) -> tuple[Path, Path]:
    """Lay the library of a driver version and `nvidia-smi` into a folder.

    Args:
        version: The driver's version, such as `580.178.04`.
        target: The folder; made where it misses.

    Returns:
        `libnvidia-ml.so.<version>` (with the link `libnvidia-ml.so.1` beside it) and `nvidia-smi`.

    Raises:
        OpsError: The compiler failed; the message ends with what it said.
    """
    compiled = _compiled()
    target.mkdir(parents=True, exist_ok=True)
    library, program = target / f"{LIBRARY}.{version}", target / PROGRAM
    shutil.copy2(compiled / LIBRARY, library)
    shutil.copy2(compiled / PROGRAM, program)
    link = target / f"{LIBRARY}.1"
    link.unlink(missing_ok=True)
    link.symlink_to(library.name)
    return library, program


def _compiled() -> Path:
    """The cached folder with both binaries, compiled unless it is there."""
    folder = CACHE / "gpu-simulator" / _key()
    if not folder.exists():
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                partial = folder.with_name(f".{folder.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                _compile(partial / LIBRARY, SOURCE, *SHARED)
                _compile(partial / PROGRAM, SOURCE / "smi", "-I", str(SOURCE), "-ldl")
                partial.rename(folder)
    return folder


def _key() -> str:
    """Digest of all that makes the binaries."""
    digest = hashlib.sha256(repr((FLAGS, SHARED, installed_version("ziglang"))).encode())
    for path in sorted(path for path in SOURCE.rglob("*") if path.is_file()):
        digest.update(path.relative_to(SOURCE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(output: Path, folder: Path, *words: str) -> None:
    sources = [str(path) for path in sorted(folder.glob("*.c"))]
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(output), *sources, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OpsError(
            f"The GPU simulator's {output.name} could not be compiled:\n{done.stderr[-2000:]}",
            place=str(folder),
            cure="make environment (it installs the compiler, ziglang), then try again",
        )
