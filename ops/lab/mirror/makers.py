"""Contents that are written by a program: kernel modules, the driver's library, a keyring."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ops.lab.gpu import build as gpu_build
from ops.lab.mirror import signing
from ops.lab.mirror.module_file import nouveau_module, nvidia_module


def make(kind: str, values: Mapping[str, str]) -> bytes:
    """The content that catalogue/contents.yml calls `make: KIND`.

    Args:
        kind: One of the kinds below.
        values: Values of the package it is for.
    """
    match kind:
        case "nouveau":
            return nouveau_module(values["release"])
        case "signed_module":
            release, driver = values["release"], values["driver"]
            return nvidia_module(release, driver, values["licence"], signed=True)
        case "driver_library":
            return _driver()[0]
        case "nvidia_smi":
            return _driver()[1]
        case "keyring":
            return signing.keyring("cuda").read_bytes()
    raise KeyError(kind)


@cache
def _driver() -> tuple[bytes, bytes]:
    """The simulated GPU's library and `nvidia-smi`, which serve every version."""
    with tempfile.TemporaryDirectory() as folder:
        library, program = gpu_build.build("0", Path(folder))
        return library.read_bytes(), program.read_bytes()
