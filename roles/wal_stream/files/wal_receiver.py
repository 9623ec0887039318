#!/usr/bin/python3
# Laid down by Rackhand; changes here are overwritten.
"""Receive the WAL of the fleet's PostgreSQL as it is written, for the moment its host is lost.

pg_receivewal does the work and says to the server what is on this disk; this program runs it, keeps
the WAL of each cluster in a folder of its own (a fresh data host must not overwrite what the lost
one left), and removes what the repository of backups has. `ops restore` has it list and offer what
the repository lacks. Standard library of the host's Python.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/rackhand/wal_stream.json")
RETRY_SECONDS = 1.0
PRUNE_SECONDS = 10.0
KEPT_ASIDE = 3
SEGMENT = re.compile(r"[0-9A-F]{24}")
ELSEWHERE = re.compile(
    r"has already been removed|is ahead of the WAL flush position|not in this server's history"
)
"""pg_receivewal's words where the server cannot go on from what is here: it was restored to an
earlier moment, or the receiver was away for longer than the server keeps WAL."""


def newest(program: str) -> str:
    """A program of the newest PostgreSQL client of this host."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4])
    )
    return str(found[-1]) if found else program


def identify(config: dict[str, Any]) -> str:
    """The system identifier of the cluster that answers; empty where none does."""
    done = subprocess.run(
        ["psql", "-XAtq", "-d", config["connection"] + " replication=true",
         "-c", "IDENTIFY_SYSTEM"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        say(f"<4>{config['receiver']}: {done.stderr.strip()}")
        return ""
    return done.stdout.split("|")[0].strip()


def say(words: str) -> None:
    """Tell the journal."""
    print(words, flush=True)


def is_archived(config: dict[str, Any], segment: str) -> bool:
    """Whether the repository of backups has a segment, whole."""
    stored = Path(config["repository"]).glob(f"*/{segment[:16]}/{segment}-*")
    return any(not path.name.endswith(".tmp") for path in stored)


def prune(config: dict[str, Any], folder: Path) -> None:
    """Remove finished segments that the repository of backups has."""
    for path in folder.iterdir():
        if SEGMENT.fullmatch(path.name) and is_archived(config, path.name):
            path.unlink()


def list_(config: dict[str, Any], system: str) -> None:
    """Print the WAL files of a cluster that are not archived, oldest first, for `ops restore`."""
    paths = sorted((Path(config["state"]) / system).glob("*"))
    found = [path.name for path in paths if SEGMENT.fullmatch(path.name.removesuffix(".partial"))]
    print(json.dumps([name for name in found if not is_archived(config, name[:24])]))


def offer(config: dict[str, Any], system: str, name: str) -> None:
    """Print one of them, packed."""
    path = Path(config["state"]) / system / name
    print(base64.b64encode(zlib.compress(path.read_bytes(), 1)).decode())


def put_aside(folder: Path) -> None:
    """Keep what the server does not go on from; of such folders the newest few."""
    folder.rename(folder.with_name(f"{folder.name}.{int(time.time())}"))
    for old in sorted(folder.parent.glob(f"{folder.name}.*"))[:-KEPT_ASIDE]:
        for path in old.iterdir():
            path.unlink()
        old.rmdir()


def receive(config: dict[str, Any], system: str) -> None:
    """Receive until the stream ends."""
    folder = Path(config["state"]) / system
    folder.mkdir(mode=0o700, exist_ok=True)
    words = [newest("pg_receivewal"), f"--directory={folder}", "--synchronous", "--no-loop",
             "--status-interval=1", f"--dbname={config['connection']}"]  # fmt: skip
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        while True:
            try:
                _, said = process.communicate(timeout=PRUNE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                prune(config, folder)
    if said.strip():
        say(f"<4>{said.strip()}")
    if ELSEWHERE.search(said):
        put_aside(folder)


def run(config: dict[str, Any]) -> None:
    """Receive for ever."""
    while True:
        if system := identify(config):
            receive(config, system)
        time.sleep(RETRY_SECONDS)


VERBS: dict[str, Callable[..., None]] = {"run": run, "list": list_, "offer": offer}


def main(words: Sequence[str]) -> int:
    """Run a verb."""
    if not words or words[0] not in VERBS:
        print("wal_receiver run | list SYSTEM | offer SYSTEM NAME", file=sys.stderr)
        return 2
    VERBS[words[0]](json.loads(CONFIG.read_text(encoding="utf-8")), *words[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
