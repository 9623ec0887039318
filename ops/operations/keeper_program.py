"""Runs on the fleet's keeper: the lock and the journals of operations, over standard input.

`hold` takes the lock for as long as this process lives and answers one JSON line per line; it ends
when its input ends or stays silent, so that a lock's owner is either alive or gone. `read` and
`list` tell without the lock. Standard library of the host's own Python.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import IO, Any

SILENCE_SECONDS = 45.0  # the other side pings every ten
LOOKS, LOOK_SECONDS = 5, 0.05  # `ops top` looks often, and shares the lock while it does
OWNER, OPEN, LOCK = "owner.json", "open.json", "lock"
END = "end"
"""The event of a journal's last entry; with it another operation may begin."""
TELLING = ("taken", "stuck", END)
"""Events by which `ops.operations.journal.status` tells how an operation stands."""


class Book:
    """All operations of a fleet, in one folder: a subfolder each with its plan and its journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """Return the operations, oldest first."""
        return sorted(path.parent.name for path in self.folder.glob("*/plan.json"))

    def read(self, name: str) -> dict[str, Any] | None:
        """Return all that is known of an operation, None where there is none."""
        if name not in self.names():
            return None
        mine = (load(self.folder / OPEN) or {}).get("id") == name
        owner = (load(self.folder / OWNER) or {}) if mine else {}
        return {
            "id": name,
            "plan": load(self.folder / name / "plan.json"),
            "entries": entries(self.folder / name / "journal.jsonl"),
            "held": owner.get("id") == name and self.is_held(),
            "owner": owner,
        }

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return an operation without its steps, and of its journal what tells how it stands."""
        found = self.read(name)
        if found is not None:
            del found["plan"]["steps"]
            whole = found["entries"]
            found["entries"] = [e for e in whole[:-1] if e["event"] in TELLING] + whole[-1:]
        return found

    def is_held(self) -> bool:
        """Tell whether a process holds the lock right now: nobody shares it then."""
        with (self.folder / LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def hold(self, owner: dict[str, Any]) -> None:
        """Take the lock, or say who has it; then serve until the other side is gone."""
        with (self.folder / LOCK).open("a") as lock:
            if not take(lock):
                return tell({"refused": "held", "owner": load(self.folder / OWNER)})
            unfinished = self.unfinished()
            if unfinished is not None and unfinished["id"] != owner["id"]:
                return tell({"refused": "unfinished", "operation": unfinished})
            store(self.folder / OWNER, {**owner, "since": time.time()})
            tell({"held": True})
            return self.serve(owner["id"])

    def unfinished(self) -> Any:
        """Return what is open, None if nothing is; one whose journal has ended is closed."""
        found = load(self.folder / OPEN)
        if found is None:
            return None
        last = entries(self.folder / found["id"] / "journal.jsonl")[-1:]
        if last and last[0]["event"] == END:  # this host died in between
            self.close()
            return None
        return found

    def close(self) -> None:
        """Let another operation begin."""
        (self.folder / OPEN).unlink(missing_ok=True)
        sync(self.folder)

    def serve(self, name: str) -> None:
        """Answer line by line until the input ends or falls silent."""
        waiting = b""
        while select.select([0], [], [], SILENCE_SECONDS)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                self.write(name, json.loads(line))
                tell({"ok": True})

    def write(self, name: str, request: dict[str, Any]) -> None:
        """Do what a line asks for; it is on the disk afterwards."""
        place = self.folder / name
        if "begin" in request:
            place.mkdir(exist_ok=True)
            store(place / "plan.json", request["begin"])
            store(self.folder / OPEN, {"id": name, **request["open"]})
        elif "append" in request:
            append(place / "journal.jsonl", request["append"])
            if request["append"]["event"] == END:
                self.close()


def take(lock: IO[str]) -> bool:
    """Take a lock, unless another process has it for longer than it takes to look at it."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(LOOK_SECONDS)
    return False


def tell(value: Any) -> None:
    """Print a line of JSON."""
    print(json.dumps(value), flush=True)


def load(path: Path) -> Any:
    """Return a file's JSON, None where it is absent or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def entries(path: Path) -> list[dict[str, Any]]:
    """Return a journal's entries; a last line that a power loss cut short is not one."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def store(path: Path, value: Any) -> None:
    """Write a file whole or not at all, down to the disk."""
    candidate = path.with_name(path.name + ".new")
    with candidate.open("w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    candidate.rename(path)
    sync(path.parent)


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add a line, down to the disk; a half line that a power loss left is cut first."""
    with path.open("a+b") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(json.dumps({"at": time.time(), **entry}).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def sync(folder: Path) -> None:
    """Bring a folder's entries down to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def main(folder: str, verb: str, *words: str) -> None:
    """Run a verb: list, read NAME, hold OWNER (as JSON)."""
    book = Book(Path(folder))
    if verb == "list":
        tell([book.summary(name) for name in book.names()])
    elif verb == "read":
        tell(book.read(words[0]))
    elif verb == "hold":
        book.hold(json.loads(words[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
