"""The fleet as the remediator is given it: a file without secrets, made from the inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ops.errors import InputError
from ops.fleet.inventory import read_host
from ops.fleet.model import Fleet

ACCOUNT = "remediator_access"
"""The account on each host; role remediator_access makes it."""


def load_fleet(path: Path, key_file: Path, known_hosts: Path) -> Fleet:
    """Read the file that role remediator lays down.

    Args:
        path: `fleet.json`.
        key_file: The private key.
        known_hosts: The hosts' own keys.

    Raises:
        InputError: It is missing or is something else.
    """
    arguments = f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        hosts = tuple(
            read_host(name, {**values, **_connection(key_file, arguments)}, path)
            for name, values in told["hosts"].items()
        )
        return Fleet(inventory=path, domain=str(told["domain"]), hosts=hosts)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the fleet cannot be read: {error!r}",
            place=str(path),
            cure="ops provision --tags watch",
        ) from error


def _connection(key_file: Path, arguments: str) -> dict[str, Any]:
    return {
        "ansible_user": ACCOUNT,
        "ansible_become": False,  # the gate on the host is root already
        "ansible_ssh_private_key_file": str(key_file),
        "ansible_ssh_common_args": arguments,
    }
