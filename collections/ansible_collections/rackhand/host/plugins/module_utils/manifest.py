# Copyright: the Rackhand founders
"""What a folder of weights holds, told alike on the control machine and on a host."""

from __future__ import annotations

import hashlib
import os
from typing import Any

MANIFEST = ".manifest.json"
#: Folders that a hub's client or git keeps beside the weights.
NOT_WEIGHTS = {".cache", ".git"}


def sha256(path: str) -> str:
    """Checksum of one file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(folder: str) -> dict[str, dict[str, Any]]:
    """Path to sha256 and size (bytes) of every file below a folder."""
    found = {}
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - NOT_WEIGHTS)
        for name in sorted(names):
            path = os.path.join(base, name)
            if name != MANIFEST:
                found[os.path.relpath(path, folder)] = {
                    "sha256": sha256(path),
                    "size": os.path.getsize(path),
                }
    return found
