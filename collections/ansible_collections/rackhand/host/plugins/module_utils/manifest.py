# Copyright: the Rackhand founders
"""A revision of weights: what a folder holds, and how it is put into place once and for all.

Told alike on the control machine, by Ansible's modules on a host, and by `ops/weights`, by a link.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

MANIFEST = ".manifest.json"
#: Behind a revision's name while it is on its way; behind one that is on its way out.
STAGING, REMOVING = ".staging", ".removing"
#: Folders that a hub's client or git keeps beside the weights.
NOT_WEIGHTS = {".cache", ".git"}
SPARE_BYTES = 1 << 30  # left free on the disk after staging
CHUNK = 1 << 20

Files = dict[str, dict[str, Any]]


def sha256(path: str) -> str:
    """Checksum of one file."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def describe(folder: str) -> Files:
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


def is_right(path: str, entry: dict[str, Any]) -> bool:
    """Whether a file is there and what its manifest says."""
    there = os.path.isfile(path) and os.path.getsize(path) == entry["size"]
    return bool(there and sha256(path) == entry["sha256"])


def digest(files: Files) -> str:
    """One checksum of all that a manifest lists, wherever it came from."""
    told = sorted((name, entry["sha256"], entry["size"]) for name, entry in files.items())
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def clear(folder: str, files: Files) -> None:
    """Remove from a staging folder what a manifest does not list: left by another source."""
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if os.path.relpath(path, folder) not in files:
                os.unlink(path)


def seal(folder: str, path: str, source: str, files: Files) -> None:
    """Write the manifest of a verified folder, bring all of it to the disk, rename it into place.

    A power loss leaves either the whole revision or a folder that is still to be finished.
    """
    manifest = os.path.join(folder, MANIFEST)
    if os.path.exists(manifest):  # read-only, of a run that ended just before the rename
        os.unlink(manifest)
    with open(manifest, "w", encoding="utf-8") as stream:
        json.dump({"source": source, "files": files}, stream, indent=1)
    for base, _, names in os.walk(folder):
        for name in names:
            os.chmod(os.path.join(base, name), 0o444)
            sync(os.path.join(base, name))
        os.chmod(base, 0o755)
        sync(base)
    os.rename(folder, path)
    sync(os.path.dirname(path))


def sync(path: str) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
