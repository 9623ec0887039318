"""Runs on the host that received WAL and on the data host: hands over what the repository lacks.

The former knows `list SYSTEM` and `offer SYSTEM NAME`; the latter `take NAME`, and reads what was
offered. Standard library of the host's own Python.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

STREAM = Path("/etc/rackhand/wal_stream.json")
RECEIVED = Path("/var/lib/postgresql/received-wal")
"""As host_program.py has it."""
FILE = re.compile(r"([0-9A-F]{24})(\.partial)?")


def list_(system: str) -> None:
    """Print the WAL files of a cluster that were received and are not archived, oldest first."""
    config = json.loads(STREAM.read_text(encoding="utf-8"))
    folder, repository = Path(config["state"]) / system, Path(config["repository"])
    found = sorted(path.name for path in folder.glob("*") if FILE.fullmatch(path.name))
    print(json.dumps([
        name for name in found if not any(repository.glob(f"*/{name[:16]}/{name[:24]}-*"))
    ]))  # fmt: skip


def offer(system: str, name: str) -> None:
    """Print one of them, packed."""
    config = json.loads(STREAM.read_text(encoding="utf-8"))
    path = Path(config["state"]) / system / name
    print(base64.b64encode(zlib.compress(path.read_bytes(), 1)).decode())


def take(name: str) -> None:
    """Keep one for the recovery; one that was being written counts as far as it goes."""
    postgres = pwd.getpwnam("postgres")
    RECEIVED.mkdir(mode=0o700, exist_ok=True)
    os.chown(RECEIVED, postgres.pw_uid, postgres.pw_gid)
    path = RECEIVED / name.removesuffix(".partial")
    candidate = path.with_suffix(".new")
    candidate.write_bytes(zlib.decompress(base64.b64decode(sys.stdin.read())))
    os.chown(candidate, postgres.pw_uid, postgres.pw_gid)
    candidate.rename(path)


VERBS: dict[str, Callable[..., None]] = {"list": list_, "offer": offer, "take": take}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
