"""Run the site playbook before a person's eyes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ops.errors import InputError, OpsError
from ops.places import ROOT
from ops.playbook.progress import Progress
from ops.playbook.run import run_playbook
from ops.playbook.view import View, print_summary

SITE = ROOT / "playbooks" / "site.yml"


def provision(inventory: Path, console: Console, arguments: Sequence[str] = ()) -> Progress:
    """Run site.yml on an inventory and print what it did.

    Raises:
        InputError: the inventory is not there.
        OpsError: a task failed or a host was not reached; already printed in full.
    """
    if not inventory.exists():
        raise InputError(
            "the inventory does not exist",
            place=str(inventory),
            cure="name a folder such as inventories/example, or run `ops lab up` first",
        )
    with View(console) as view:
        status, progress = run_playbook(SITE, inventory, arguments=arguments, observer=view)
    print_summary(console, progress, view.seconds())
    if status:
        hosts = ", ".join(sorted({failure.host for failure in progress.failures}))
        raise OpsError(f"site.yml failed on {hosts}", place=str(inventory))
    return progress
