"""The shared engine environment: vLLM's CPU build, made once, seen read-only by every host.

It carries its own interpreter, so that it also runs on a release whose Python has no wheels for
it, and lies at the path it has on a host, because a virtual environment knows its own path.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from ops.lab import package_index
from ops.lab.chamber import Chamber
from ops.lab.image import find_image
from ops.lab.locks import locked
from ops.lab.paths import CACHE, REPOSITORY

NAME = "0.32.0-cpu"
LOCK = REPOSITORY / "roles/engine/files/cpu.lock"
HOME = f"/opt/vllm/{NAME}"
BUILDER = "bookworm"  # its Python 3.11 is the one that PyTorch's CPU wheel is pinned for
BUILD = """\
set -eu
mkdir -p $HOME_/python/bin $HOME_/python/lib
cp -a /usr/bin/python3.11 $HOME_/python/bin/
cp -a /usr/lib/python3.11 $HOME_/python/lib/
uv venv -q --python $HOME_/python/bin/python3.11 --allow-existing $HOME_
uv pip install --python $HOME_/bin/python --require-hashes --no-deps --compile-bytecode \
  -r /run/lock.txt
metadata=$HOME_/lib/python3.11/site-packages/vllm-0.32.0+cpu.dist-info
mkdir -p $metadata
printf 'Metadata-Version: 2.1\\nName: vllm\\nVersion: 0.32.0+cpu\\n' > $metadata/METADATA
printf 'rackhand\\n' > $metadata/INSTALLER
printf 'vllm-0.32.0+cpu.dist-info/METADATA,,\\nvllm-0.32.0+cpu.dist-info/INSTALLER,,\\n\
vllm-0.32.0+cpu.dist-info/RECORD,,\\n' > $metadata/RECORD
$HOME_/bin/python -c 'import torch, vllm'
"""


def folder() -> Path:
    """The environment's folder in the cache; complete once it holds `.complete`."""
    key = hashlib.sha256(LOCK.read_bytes() + BUILD.encode()).hexdigest()[:16]
    return CACHE / "engine" / key / NAME


def ensure(say: Callable[[str], None] = lambda _: None) -> Path:
    """Build the environment unless it is there.

    Args:
        say: Told what goes on, for a person who waits.

    Returns:
        Its folder here; every host sees it read-only at `HOME`.

    Raises:
        OpsError: A package could not be had; the message ends with uv's own words.
    """
    made = folder()
    if not (made / ".complete").exists():
        with locked(made.parent.with_name(f".{made.parent.name}.lock")):
            if not (made / ".complete").exists():
                _build(made, say)
    return made


def _build(made: Path, say: Callable[[str], None]) -> None:
    from uv import find_uv_bin

    image = find_image(BUILDER)
    image.ensure(say)
    say("building the engine environment (vLLM for CPUs, about 2.5 GB)")
    packages = CACHE / "uv"
    for path in (made, packages):
        path.mkdir(parents=True, exist_ok=True)
    chamber = Chamber(
        image=image,
        name="engine-environment",
        writable={HOME: made, "/var/cache/uv": packages},
        readable={
            "/usr/local/bin/uv": Path(find_uv_bin()),
            "/run/lock.txt": LOCK,
            **package_index.folders(),
        },
    )
    variables = {"HOME_": HOME, "UV_CACHE_DIR": "/var/cache/uv", **package_index.uv_environment()}
    shutil.rmtree(made / "lib", ignore_errors=True)  # of a build that was cut short
    chamber.run(["sh", "-c", BUILD], made.with_name("build.log"), variables)
    (made / ".complete").write_text(hashlib.sha256(LOCK.read_bytes()).hexdigest() + "\n")
