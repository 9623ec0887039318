"""Run a program inside an image, without booting it and without changing it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ops.errors import OpsError
from ops.lab import control_machine
from ops.lab.cgroup import Group
from ops.lab.image import Image

LOG_TAIL = 12  # lines shown of a failed program


@dataclass(frozen=True)
class Chamber:
    """An image to run programs in; they share this machine's network.

    Attributes:
        image: The image; it must have been built.
        name: Names the control group: one run at a time under a name.
        writable: Folders of this machine by their path in the chamber.
        readable: The same, read-only.
    """

    image: Image
    name: str
    writable: Mapping[str, Path] = field(default_factory=dict)
    readable: Mapping[str, Path] = field(default_factory=dict)

    def run(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Run a program to its end; what an earlier run of this name left is ended first.

        Args:
            command: The program and its words.
            log: Where its output goes, anew.
            environment: Variables that it sees.

        Raises:
            OpsError: It failed; the message ends with its last lines.
        """
        group = Group(f"chamber-{self.name}")
        group.remove()
        with log.open("w") as output:
            done = subprocess.run(
                [*self._nspawn(environment or {}), "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=group.joiner(),
                check=False,
            )
        group.remove()
        if done.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
            raise OpsError(f"`{command[0]}` failed:\n{tail}", place=str(log))

    def _nspawn(self, environment: Mapping[str, str]) -> list[str]:
        readable = dict(self.readable)
        bundle = control_machine.ca_bundle()
        if bundle is not None:
            readable[str(control_machine.CA_BUNDLE)] = bundle
            environment = {"SSL_CERT_FILE": str(control_machine.CA_BUNDLE), **environment}
        return [
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--as-pid2"),
            *("--volatile=overlay", "--console=pipe", "--resolv-conf=replace-host"),
            "--timezone=off",
            f"--machine=chamber-{self.name}"[:74],
            f"--directory={self.image.folder}",
            *(f"--bind-ro={ours}:{theirs}" for theirs, ours in readable.items()),
            *(f"--bind={ours}:{theirs}" for theirs, ours in self.writable.items()),
            *(f"--setenv={name}={value}" for name, value in environment.items()),
        ]
