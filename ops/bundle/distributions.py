"""The distributions that hosts run: what Ansible says of them, their Python, their archive."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ops.errors import InputError
from ops.lab import control_machine
from ops.lab.commands import KEYRING
from ops.mirror.wanted import UBUNTU, UBUNTU_KEY


@dataclass(frozen=True)
class Distribution:
    """One release of a distribution.

    Attributes:
        name: As NVIDIA and `ops mirror` name it: `debian12`, `ubuntu2404`.
        maker: As Ansible names it: `Debian`, `Ubuntu`.
        version: `12`, `24.04`.
        suite: Its suite in the archive.
        python: Its own Python.
        glibc: Its C library, which says what wheels run there (PEP 600).
    """

    name: str
    maker: str
    version: str
    suite: str
    python: tuple[int, int]
    glibc: tuple[int, int]

    @property
    def facts(self) -> dict[str, str]:
        """What Ansible would tell of a host."""
        return {
            "ansible_distribution": self.maker,
            "ansible_distribution_version": self.version,
            "ansible_distribution_major_version": self.version.partition(".")[0],
            "ansible_distribution_release": self.suite,
            "ansible_os_family": "Debian",
            "ansible_architecture": "x86_64",
        }

    def sources(self) -> list[str]:
        """Its archive as lines of a sources.list, each under its own key.

        Mirrors: `RACKHAND_DEBIAN_MIRROR`, `RACKHAND_UBUNTU_MIRROR`, and their `_SECURITY_` forms.
        """
        if self.maker == "Debian":
            key, components = KEYRING, "main"
            pairs = control_machine.apt_sources(self.suite)
        else:
            key, components = Path(UBUNTU_KEY), "main universe"
            mirror = os.environ.get("RACKHAND_UBUNTU_MIRROR", UBUNTU)
            security = os.environ.get("RACKHAND_UBUNTU_SECURITY_MIRROR", mirror)
            pairs = [(mirror, self.suite), (mirror, f"{self.suite}-updates")]
            pairs.append((security, f"{self.suite}-security"))
        if not key.is_file():
            raise InputError(
                f"The key of {self.maker}'s archive is not on this machine",
                place=str(key),
                cure=f"apt-get install -y {self.maker.lower()}-archive-keyring, or its -keyring",
            )
        return [
            f"deb [arch=amd64 signed-by={key}] {url} {suite} {components}" for url, suite in pairs
        ]


DISTRIBUTIONS = {
    each.name: each
    for each in (
        Distribution("debian12", "Debian", "12", "bookworm", (3, 11), (2, 36)),
        Distribution("debian13", "Debian", "13", "trixie", (3, 13), (2, 41)),
        Distribution("ubuntu2204", "Ubuntu", "22.04", "jammy", (3, 10), (2, 35)),
        Distribution("ubuntu2404", "Ubuntu", "24.04", "noble", (3, 12), (2, 39)),
    )
}


def find(name: str) -> Distribution:
    """The distribution of that name.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    if name not in DISTRIBUTIONS:
        raise InputError(
            f"{name!r} is no distribution that hosts can run",
            cure=f"use one of {', '.join(DISTRIBUTIONS)}",
        )
    return DISTRIBUTIONS[name]
