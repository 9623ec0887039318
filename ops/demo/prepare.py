"""What the demo needs on the agent host: an API key and something to know."""

from __future__ import annotations

import json
from pathlib import Path

from ops.agent.command import ingest_from_input
from ops.agent.folder import find_documents, pack
from ops.agent.host import ask
from ops.fleet import Fleet
from ops.lab.demo_model import KNOWLEDGE
from ops.lab.paths import write_atomically
from ops.remote import connect, run

KEY_NAME = "demo"
KEY_LIFE = "90d"


def ensure_key(fleet: Fleet, path: Path, *, renew: bool = False) -> str:
    """Return the demo's API key, made on the first run.

    Args:
        fleet: the lab's.
        path: where it is kept on this machine, readable by its owner only.
        renew: make a new one though there is one.
    """
    if path.exists() and not renew:
        return path.read_text(encoding="ascii").strip()
    host = fleet.first("agent")
    command = f"agent-app keys create --name {KEY_NAME} --expires {KEY_LIFE} --json"
    with connect(fleet, host) as connection:
        key = str(json.loads(run(connection, host, command))["key"])
    write_atomically(path, f"{key}\n", 0o600)
    return key


def ingest_knowledge(fleet: Fleet) -> int:
    """Hand the demo's documents to the app; it passes over what it has. Returns their number."""
    documents = find_documents(KNOWLEDGE)
    ask(fleet, ingest_from_input({}), source=lambda: pack(documents))
    return len(documents)
