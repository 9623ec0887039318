"""Debian packages with all that comes along, chosen by apt itself in a root of its own.

apt is asked as it would be on a host: first what a minimal host is made of, then, with that
installed, what the roles add. Both are copied, so that a host whose base is older than the
archive can follow. Signatures are apt's own to check: an archive without one stops it.
"""

from __future__ import annotations

import email.utils
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.bundle.distributions import Distribution
from ops.bundle.needs import Packages
from ops.errors import InputError, OpsError
from ops.lab.commands import run
from ops.lab.paths import write_atomically

#: A host that Ansible can reach has at least this; what is essential comes first.
MINIMAL = ("?essential", "apt", "systemd-sysv", "openssh-server", "python3")
PRINTED = re.compile(r"^'(\S+)' (\S+) (\d+) SHA256:([0-9a-f]{64})$", re.MULTILINE)
UNKNOWN = re.compile(r"E: (?:Unable to locate package|Package '?)\s*([a-z0-9.+-]+)")


@dataclass(frozen=True)
class Deb:
    """A package of an archive, in one version.

    Attributes:
        file: Its name in the bundle.
        url: Where it comes from.
    """

    name: str
    version: str
    file: str
    url: str
    size: int
    sha256: str


class Archive:
    """A distribution's archive, seen from a root of its own.

    Args:
        distribution: Whose.
        folder: The root: indexes and, while they come, packages. Kept, a next run is quicker.
    """

    def __init__(self, distribution: Distribution, folder: Path) -> None:
        self.distribution, self.folder = distribution, folder
        self.packages = folder / "archives"
        self.status, self.base = folder / "status", folder / "status.minimal"

    def refresh(self) -> None:
        """Read the archive's indexes.

        Raises:
            OpsError: It cannot be reached, or its signature is wrong; with apt's words.
        """
        for path in (self.folder / "lists/partial", self.packages / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        self.status.write_text("")
        write_atomically(
            self.folder / "sources.list", "\n".join(self.distribution.sources()) + "\n"
        )
        run([*self._apt(self.status), "update", "-qq", "-o", "APT::Update::Error-Mode=any"])

    def moment(self) -> int:
        """When the archive was last changed, in seconds since 1970."""
        dates = [
            email.utils.parsedate_to_datetime(line.removeprefix("Date: "))
            for path in (self.folder / "lists").glob("*Release")
            for line in path.read_text(errors="replace").splitlines()
            if line.startswith("Date: ")
        ]
        if not dates:
            raise OpsError("The archive has no dated Release", place=str(self.folder))
        return int(max(dates).timestamp())

    def has(self, names: Iterable[str]) -> set[str]:
        """Those packages that the archive has, or that another one provides."""
        wanted = sorted(names)
        shown = run(["apt-cache", *self._options(self.status), "showpkg", *wanted], check=False)
        blocks = re.split(r"^Package: ", shown.stdout, flags=re.MULTILINE)[1:]
        found = set()
        for block in blocks:
            versions = block.partition("Versions:")[2].partition("Reverse Depends:")[0].strip()
            provided = block.partition("Reverse Provides:")[2].strip()
            if versions or provided:
                found.add(block.split()[0])
        return found

    def resolve(self, wanted: Packages) -> list[Deb]:
        """What hosts lack, and what they are made of, in the archive's present versions.

        Raises:
            OpsError: Packages are missing or contradict each other; with apt's words.
        """
        minimal = self._ask(self.status, [*MINIMAL], recommends=False)
        self.base.write_text(self._as_installed(minimal))
        lacking = self._ask(self.base, sorted(wanted.with_recommends), recommends=True)
        lacking += self._ask(self.base, sorted(wanted.bare), recommends=False)
        return sorted({*minimal, *lacking}, key=lambda each: each.file)

    def fetch(self, wanted: Packages) -> None:
        """Download what `resolve` names; what is there is left, a part is continued."""
        for status, names, recommends in (
            (self.status, [*MINIMAL], False),
            (self.base, sorted(wanted.with_recommends), True),
            (self.base, sorted(wanted.bare), False),
        ):
            if names:
                run([*self._install(status, recommends), "--download-only", *names])

    def _ask(self, status: Path, names: Sequence[str], *, recommends: bool) -> list[Deb]:
        if not names:
            return []
        words = [*self._install(status, recommends), "--print-uris", *names]
        done = run(words, check=False)
        if done.returncode != 0:
            raise InputError(
                f"{self.distribution.name} has not all of it: {done.stderr.strip()[-800:]}",
                place=str(self.folder / "sources.list"),
                cure="correct the inventory's package lists, or name a mirror that has them "
                "(RACKHAND_DEBIAN_MIRROR, RACKHAND_UBUNTU_MIRROR)",
            )
        return [_deb(*match) for match in PRINTED.findall(done.stdout)]

    def _install(self, status: Path, recommends: bool) -> list[str]:
        option = f"APT::Install-Recommends={'true' if recommends else 'false'}"
        return [*self._apt(status), "-y", "-qq", "-o", option, "install"]

    def _as_installed(self, packages: Iterable[Deb]) -> str:
        """dpkg's status of a host that has these packages."""
        names = [f"{each.name}={each.version}" for each in packages]
        shown = run(["apt-cache", *self._options(self.status), "show", *names]).stdout
        stanzas = filter(str.strip, shown.split("\n\n"))
        return "".join(f"{each.strip()}\nStatus: install ok installed\n\n" for each in stanzas)

    def _apt(self, status: Path) -> list[str]:
        return ["apt-get", *self._options(status)]

    def _options(self, status: Path) -> list[str]:
        values = {
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": self.folder,
            "Dir::State::status": status,
            "Dir::State::extended_states": self.folder / "extended_states",
            "Dir::Cache": self.folder,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Default-Release": "",
            "APT::Sandbox::User": "root",
            "APT::Keep-Downloaded-Packages": "true",
            "Acquire::Languages": "none",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Retries": "3",
        }
        return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]


def _deb(url: str, file: str, size: str, sha256: str) -> Deb:
    name, version, _ = urllib.parse.unquote(file).split("_", 2)
    return Deb(name, version, file, url, int(size), sha256)
