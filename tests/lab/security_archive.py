"""A security archive of our own on a host: packages of given names, installed old, offered new."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack import Lab

FOLDER = "/srv/security-archive"
SOURCES = "/etc/apt/sources.list.d/security-archive.list"
RELEASE = """\
Origin: Debian
Label: Debian-Security
Suite: stable-security
Codename: {codename}-security
Architectures: amd64
Components: main
"""


class Archive:
    """Builds packages here and offers them there.

    Args:
        lab: the lab.
        host: where packages are installed and offered.
        scratch: a folder of this machine.
    """

    def __init__(self, lab: Lab, host: str, scratch: Path) -> None:
        self.lab, self.host, self.scratch = lab, host, scratch

    @contextmanager
    def offering(self, names: list[str]) -> Iterator[None]:
        """Install version 1 of each, offer version 2 as a security archive would."""
        codename = self.lab.ssh(self.host, ". /etc/os-release; echo $VERSION_CODENAME")
        for name in names:
            self._build(name, "1")
            self._build(name, "2")
        pool = f"dists/{codename}-security/main/binary-amd64"
        self._run(f"mkdir -p {pool} && apt-ftparchive packages . >{pool}/Packages")
        (self.scratch / "release").write_text(RELEASE.format(codename=codename))
        folder = f"dists/{codename}-security"
        self._run(f"cat release >r && apt-ftparchive release {folder} >>r && mv r {folder}/Release")
        self._send()
        old = " ".join(f"{FOLDER}/{name}_1.deb" for name in names)
        line = f"deb [trusted=yes] file:{FOLDER} {codename}-security main"
        update = "apt-get update -q -o Dir::Etc::sourcelist=" + SOURCES
        update += " -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0"
        self.lab.ssh(self.host, f"dpkg -i {old} && echo '{line}' >{SOURCES} && {update}")
        try:
            yield
        finally:
            purge = f"dpkg -P {' '.join(names)}; rm -rf {FOLDER} {SOURCES}"
            self.lab.ssh(self.host, f"{purge} /var/lib/apt/lists/*_security-archive_*")

    def _build(self, name: str, version: str) -> None:
        root = self.scratch / f"{name}-{version}"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            "Maintainer: Rackhand's tests <tests@rackhand.test>\nDescription: nothing\n"
        )
        self._run(f"dpkg-deb -b {root} {name}_{version}.deb")

    def _run(self, command: str) -> None:
        subprocess.run(["sh", "-ec", command], cwd=self.scratch, check=True, capture_output=True)

    def _send(self) -> None:
        packed = subprocess.run(
            ["tar", "-C", str(self.scratch), "-cf", "-", "--exclude=DEBIAN", "."],
            check=True,
            capture_output=True,
        ).stdout
        words = ["ops", "lab", "ssh", "--name", self.lab.name, self.host, "--"]
        unpack = f"mkdir -p {FOLDER} && tar -C {FOLDER} -xf -"
        subprocess.run([*words, unpack], input=packed, check=True, timeout=60)
