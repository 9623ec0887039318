"""Run one playbook and follow its events."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ops.errors import OpsError
from ops.places import ROOT
from ops.playbook.progress import Progress

Observer = Callable[[str, Progress, str], None]
"""Called after each event with its name, the progress and the text Ansible printed for it."""


def run_playbook(
    playbook: Path,
    inventory: Path,
    *,
    arguments: Sequence[str] = (),
    observer: Observer = lambda _name, _progress, _text: None,
    collect: str = "",
) -> tuple[int, Progress]:
    """Run a playbook to its end.

    Args:
        playbook: its path in the checkout.
        inventory: a folder or file.
        arguments: further options of `ansible-playbook`, such as `--check`.
        observer: sees every event.
        collect: a module whose results `Progress.results` keeps, such as `rackhand.host.ready`.

    Returns:
        Ansible's exit status (0 when every host is as wanted) and the progress.

    Raises:
        OpsError: the run was interrupted, or Ansible refused to begin.
    """
    import ansible_runner  # 0.3 s of import

    progress = Progress(collect=collect)

    def handle(event: dict[str, Any]) -> bool:
        name = event.get("event", "")
        progress.observe(name, event.get("event_data") or {}, time.monotonic())
        observer(name, progress, event.get("stdout") or "")
        return False  # keep no file of the event: results may hold a secret

    with tempfile.TemporaryDirectory(prefix="rackhand-run-") as scratch:
        result = ansible_runner.run(
            private_data_dir=scratch,
            project_dir=str(ROOT),
            playbook=str(playbook.resolve()),
            inventory=str(inventory.resolve()),
            cmdline=shlex.join(arguments),
            envvars={
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            event_handler=handle,
            quiet=True,
        )
        output = result.stdout.read() if result.rc and not progress.failures else ""
    if result.status == "canceled":
        raise OpsError(
            "the run was interrupted",
            place=f"{progress.role}: {progress.task}",
            cure="run it again: every task takes up where the host is",
        )
    if output:
        raise OpsError(
            f"ansible-playbook ended with status {result.rc}\n{output.strip()[-3000:]}",
            place=str(playbook),
            cure="correct what it names above, then run it again",
        )
    return result.rc or 0, progress
