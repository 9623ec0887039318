"""The remediator seen from an operator's machine: asked, paused and let go on, over SSH."""

from __future__ import annotations

import json
from shlex import quote
from typing import Any

from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet, Host
from ops.remote import connect, run
from ops.remote.stream import execute

STATE = "/var/lib/remediator"
ABSENT = 127
"""A shell's status where it finds no such program."""


def home(fleet: Fleet) -> Host:
    """The host that the remediator runs on.

    Raises:
        InputError: No host is in group monitoring.
    """
    return fleet.first("monitoring")


def ask(fleet: Fleet, *words: str) -> dict[str, Any]:
    """Ask the remediator's own program.

    Args:
        fleet: The fleet.
        words: `show`, `active`, or `explain` with an alert, a host and labels.

    Raises:
        InputError: Remediation is off, so that there is no such program; or it refuses the words.
        OpsError: It says what is wrong.
    """
    host = home(fleet)
    command = " ".join(["/usr/local/bin/remediator", *map(quote, words)])
    with connect(fleet, host) as connection:
        done = execute(connection, host, command)
    if done.status == ABSENT:
        raise InputError(
            f"no remediator is laid down on {host.name}",
            place=f"{fleet.inventory}: remediation",
            cure="set remediation: {mode: dry_run}, then: ops provision --tags watch",
        )
    if done.status != 0:
        kind = InputError if done.status == InputError.exit_code else OpsError
        lines = [line for line in done.complaint.strip().splitlines() if line]
        raise kind("\n".join(lines[-8:]) or f"remediator ended with status {done.status}",
                   place=host.name, cure="journalctl -u remediator")  # fmt: skip
    found: dict[str, Any] = json.loads(done.output)
    return found


def unit_state(fleet: Fleet) -> str:
    """The service's state, as systemd has it."""
    host = home(fleet)
    with connect(fleet, host) as connection:
        return run(connection, host, "systemctl show -P ActiveState remediator.service").strip()


def pause(fleet: Fleet, words: str) -> None:
    """Pull the kill switch: nothing is begun; what is under way goes on."""
    host = home(fleet)
    with connect(fleet, host) as connection:
        # Root's, so that the service cannot let itself go on.
        run(
            connection, host,
            f"umask 022; printf '%s\\n' {quote(words)} > {STATE}/paused.new && "
            f"mv {STATE}/paused.new {STATE}/paused",
        )  # fmt: skip


def let_go_on(fleet: Fleet) -> None:
    """Take the kill switch back."""
    host = home(fleet)
    with connect(fleet, host) as connection:
        run(connection, host, f"rm -f {STATE}/paused")
