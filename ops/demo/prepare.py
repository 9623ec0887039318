"""What the demo needs on the agent host: an API key and something to know."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from uuid import uuid4

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
    documents = sorted(KNOWLEDGE.glob("*.md"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for document in documents:
            archive.add(document, arcname=document.name)
    host = fleet.first("agent")
    sent = f"/tmp/rackhand-{uuid4().hex}.tar.gz"  # noqa: S108 - a name that no one can foresee
    command = (
        f"set -e; folder=$(mktemp -d); trap 'rm -rf \"$folder\" {sent}' EXIT; "
        f'chmod 755 "$folder"; tar -xzf {sent} -C "$folder" --no-same-owner; '
        'agent-app knowledge ingest "$folder"'
    )
    packed.seek(0)
    with connect(fleet, host) as connection:
        connection.put(packed, sent)
        run(connection, host, command)
    return len(documents)
