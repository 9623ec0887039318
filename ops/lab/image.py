"""Base images: a bare server of a Debian release, with the packages that roles use at hand.

An image is a folder, keyed by everything that makes it, and never changes once it has its name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.errors import InputError, OpsError
from ops.lab import control_machine
from ops.lab.cgroup import Group
from ops.lab.commands import KEYRING
from ops.lab.locks import locked
from ops.lab.paths import CACHE

PACKAGES = Path(__file__).with_name("packages.yml")
KEEP_PACKAGES = 'APT::Keep-Downloaded-Packages "true";\n'
NETWORKD = "systemctl enable systemd-networkd.service ssh.service"
RECIPE = 1  # raise it when the way an image is built changes its content


@dataclass(frozen=True)
class Image:
    """What a host looks like before any role ran.

    Attributes:
        name: As given on the command line.
        suite: Debian release that it is made from.
        identity: Files that change what the host says it is.
    """

    name: str
    suite: str
    identity: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        """The image's folder in the cache; it exists once the image is complete."""
        made_from = json.dumps([RECIPE, self.suite, _packages(), KEEP_PACKAGES, NETWORKD])
        key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
        return CACHE / "images" / f"{self.suite}-{key}"

    def ensure(self, say: Callable[[str], None] = lambda _: None) -> Path:
        """Build the image unless it is there.

        Args:
            say: Told what goes on, for a person who waits.

        Returns:
            Its folder.

        Raises:
            OpsError: The build failed; the message ends with what mmdebstrap said.
        """
        if not self.folder.exists():
            with locked(self.folder.with_name(f".{self.folder.name}.lock")):
                if not self.folder.exists():
                    say(f"building the {self.suite} image")
                    self._build()
        return self.folder

    def _build(self) -> None:
        partial = self.folder.with_name(f".{self.folder.name}.partial")
        group = Group(f"build-{self.folder.name}")
        group.remove()
        shutil.rmtree(partial, ignore_errors=True)
        log = self.folder.with_name(f"{self.folder.name}.log")
        with log.open("w") as output:
            done = subprocess.run(
                self._mmdebstrap(partial),
                input="\n".join(
                    f"deb [signed-by={KEYRING}] {uri} {suite} main"
                    for uri, suite in control_machine.apt_sources(self.suite)
                ),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=group.joiner(),
                check=False,
            )
        group.remove()
        if done.returncode != 0:
            tail = "\n".join(log.read_text().splitlines()[-8:])
            raise OpsError(
                f"The {self.suite} image could not be built:\n{tail}",
                place=str(log),
                cure="check that the archive is reachable, or set RACKHAND_DEBIAN_MIRROR",
            )
        partial.rename(self.folder)

    def _mmdebstrap(self, target: Path) -> list[str]:
        packages = _packages()
        downloads = [*packages["downloaded"]["all"], *packages["downloaded"][self.suite]]
        etc = '"$1/etc'
        hooks = [
            f'rm -f {etc}/apt/sources.list" {etc}"/apt/sources.list.d/*',
            _write("etc/apt/sources.list.d/debian.sources", _sources(self.suite)),
            _write("etc/apt/apt.conf.d/90keep-packages", KEEP_PACKAGES),
            'chroot "$1" apt-get update -q',
            'chroot "$1" apt-get clean',
            f'chroot "$1" apt-get install -q -y --download-only {" ".join(downloads)}',
            f'chroot "$1" {NETWORKD}',
            f'chroot "$1" systemctl mask {" ".join(packages["masked"])}',
            f'rm -f {etc}/apt/apt.conf.d/99mmdebstrap" {etc}/hostname" {etc}"/ssh/ssh_host_*',
            f': > {etc}/machine-id"',
        ]
        return [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--skip=cleanup/apt",
            f"--include={','.join(packages['installed'])}",
            *(f"--aptopt={line}" for line in control_machine.apt_settings()),
            *(f"--customize-hook={hook}" for hook in hooks),
            self.suite,
            str(target),
            "-",
        ]


def _packages() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(PACKAGES.read_text())
    return content


def _sources(suite: str) -> str:
    return control_machine.apt_sources_deb822(suite)


def _write(path: str, content: str) -> str:
    return f"cat > \"$1/{path}\" <<'END'\n{content}END\n"


UBUNTU = """\
PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.1 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=noble
"""
UBUNTU_LSB = """\
DISTRIB_ID=Ubuntu
DISTRIB_RELEASE=24.04
DISTRIB_CODENAME=noble
DISTRIB_DESCRIPTION="Ubuntu 24.04.1 LTS"
"""
FACADE = (("usr/lib/os-release", UBUNTU), ("etc/lsb-release", UBUNTU_LSB))
IMAGES = {
    "bookworm": Image("bookworm", "bookworm"),
    "trixie": Image("trixie", "trixie"),
    "ubuntu-24.04-facade": Image("ubuntu-24.04-facade", "trixie", FACADE),
}


def find_image(name: str) -> Image:
    """The image of that name.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    if name not in IMAGES:
        raise InputError(f"No image is called {name!r}", cure=f"use one of {', '.join(IMAGES)}")
    return IMAGES[name]
