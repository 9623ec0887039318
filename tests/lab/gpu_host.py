"""A lab host with simulated GPUs, as its operator and as a person with plain apt."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from stack import Lab, SiteRun, run_site

#: Counts boots in a file, since the journal of a fresh host does not outlive one.
COUNTER = """\
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /proc/sys/kernel/random/boot_id >> /var/log/boots'
[Install]
WantedBy=multi-user.target
"""
#: What a person adds to reach Ubuntu's restricted component.
RESTRICTED = (
    "deb [signed-by=/usr/share/keyrings/rackhand-ubuntu-archive.gpg] "
    "http://mirror.rackhand.test/current/ubuntu {suite} restricted multiverse\n"
)
DRIVER_TAGS = "nvidia_driver"


def fresh(lab: Lab) -> GpuHost:
    """The lab's host with the files that it was created with, and a mirror of today."""
    host = GpuHost(lab)
    host.mirror("2026-11")
    host.lab_command("reset", host.name)
    host.count_boots()
    return host


@dataclass
class GpuHost:
    """One host, and what an operator or a bystander does on it."""

    lab: Lab
    name: str = "node1"

    # -- the operator ---------------------------------------------------------------------------
    def play(self, *arguments: str, playbook: str = "site", tags: str = DRIVER_TAGS) -> SiteRun:
        """Run a playbook of this repository."""
        return run_site(self.lab, "--tags", tags, *arguments, playbook=playbook)

    def lab_command(self, *words: str) -> None:
        """Run `ops lab` on this lab."""
        done = subprocess.run(
            ["ops", "lab", *words, "--name", self.lab.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    def keep(self, snapshot: str) -> None:
        """Keep the host's files under a name."""
        self.lab_command("snapshot", self.name, snapshot)

    def back_to(self, snapshot: str) -> None:
        """Give the host the files of a snapshot."""
        self.lab_command("restore", self.name, snapshot)

    def mirror(self, state: str) -> None:
        """Move the mirror to a state, as time would."""
        self.lab_command("mirror", "use", state)

    # -- the bystander --------------------------------------------------------------------------
    def sh(self, command: str) -> str:
        """Run a shell command that must succeed."""
        return self.lab.ssh(self.name, command)

    def attempt(self, command: str) -> tuple[bool, str]:
        """Run a shell command that may fail; whether it did not, and all that it said."""
        said = self.lab.ssh(self.name, f"({command}) 2>&1; echo status=$?", check=False)
        return said.endswith("status=0"), said

    def apt(self, words: str) -> tuple[bool, str]:
        """What a person types, without the questions."""
        return self.attempt(f"DEBIAN_FRONTEND=noninteractive apt-get -y {words}")

    def count_boots(self) -> None:
        """Count boots from the next one on."""
        path = "/etc/systemd/system/count-boots.service"
        self.sh(f"cat > {path} <<'END'\n{COUNTER}END\nsystemctl enable count-boots.service")

    def reach_restricted(self) -> None:
        """Add Ubuntu's restricted component, as a person does."""
        lines = "".join(
            RESTRICTED.format(suite=suite) for suite in ("noble", "noble-updates", "noble-security")
        )
        self.sh(f"cat > /etc/apt/sources.list.d/person.list <<'END'\n{lines}END\napt-get update")

    def reboot(self) -> None:
        """Boot anew, and wait until the host is back."""
        boot = self.sh("cat /proc/sys/kernel/random/boot_id")
        self.attempt("systemctl reboot")
        for _ in range(60):
            now = self.lab.ssh(self.name, "cat /proc/sys/kernel/random/boot_id", check=False)
            if now not in ("", boot):
                return
        raise AssertionError(f"{self.name} did not come back")

    # -- what is true ---------------------------------------------------------------------------
    @property
    def boots(self) -> int:
        """Boots since the counting began."""
        return len(self.sh("cat /var/log/boots 2>/dev/null || true").split())

    @property
    def loaded(self) -> str:
        """The version of the driver in the kernel; empty if none is loaded."""
        text = self.sh("cat /proc/driver/nvidia/version 2>/dev/null || true")
        found = re.search(r"(\d+\.\d+\.\d+)  Release", text)
        return found[1] if found else ""

    @property
    def packages(self) -> dict[str, str]:
        """Installed packages and their versions."""
        form = "${Package} ${Version} ${db:Status-Abbrev}\\n"
        rows = [line.split() for line in self.sh(f"dpkg-query -W -f '{form}'").splitlines()]
        return {row[0]: row[1] for row in rows if row[2][1:2] == "i"}

    @property
    def fact(self) -> dict[str, Any]:
        """The role's record."""
        found: dict[str, Any] = json.loads(self.sh("cat /etc/ansible/facts.d/nvidia_driver.fact"))
        return found

    def branches(self) -> set[str]:
        """Branches of the installed driver libraries."""
        return {
            version.split(".")[0]
            for name, version in self.packages.items()
            if name.startswith(("libnvidia-compute", "libnvidia-ml1"))
        }
