"""Other revisions of the demo model, and what an engine's host says that it serves."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from stack import Stack

from ops.models.inventory import wanted_entry

NUMBERS = itertools.count(1)


class Revisions:
    """Names new revisions of the same weights, so that each upgrade goes somewhere else."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        source = wanted_entry(stack.lab.inventory, "demo")["source"].removeprefix("file://")
        self._weights = shutil.copytree(source, folder / "demo")

    def next(self, *words: str) -> list[str]:
        """Arguments of `ops model upgrade` that lead to a revision which never served."""
        source = f"file://{self._weights}"
        return ["demo", "--to", f"r{next(NUMBERS)}", "--source", source, "--yes", *words]


def fact(stack: Stack, host: str = "node1") -> dict[str, Any]:
    """What a host says of its model."""
    text = stack.lab.ssh(host, "cat /etc/ansible/facts.d/engine.fact")
    found: dict[str, Any] = json.loads(text)["models"]["demo"]
    return found


def serves(stack: Stack, host: str = "node1") -> dict[str, Any]:
    """Of that, what a client could tell."""
    found = fact(stack, host)
    return {name: found[name] for name in ("active", "revision", "traffic")}
