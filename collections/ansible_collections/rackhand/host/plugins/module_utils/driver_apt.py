# Copyright: the Rackhand founders
"""apt as the GPU layer needs it: asked first, one transaction, patient with mirrors in mid-sync.

In check mode every question is answered from a state of its own, with the repositories that a real
run would have added, so that the answer is true on a fresh host too.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.rackhand.host.plugins.module_utils import driver_record, gpu_hardware
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Plan,
    Refusal,
    Step,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_repository import (
    SOURCES_FOLDER,
    sources_text,
    without_doubles,
)

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

#: Packages of this transaction and the one before stay here: Ubuntu's archive forgets old versions.
ARCHIVES = "/var/lib/rackhand/nvidia_driver/packages"
SOURCES_FILE = "/etc/apt/sources.list"
PREFERENCES_FOLDER = "/etc/apt/preferences.d"
LOCK_WAIT_S = 600
FIRST_WAIT_S, LONGEST_WAIT_S = 5, 60
#: What a mirror says while it is being brought up to date.
MID_SYNC = re.compile(
    r"Hash Sum mismatch|unexpected size|Mirror sync in progress|404 |File not found"
    r"|Failed to fetch|index files failed"
)
#: Waiting does not bring these back.
OUT_OF_REACH = re.compile(
    r"Could not resolve|Temporary failure resolving|Could not connect|Connection refused"
)
STEP = re.compile(
    r"^(Inst|Remv) ([^\s:]+)(?::\w+)?(?: \[([^\]]*)\])?(?: \((\S+) [^)]*\))?", re.MULTILINE
)


class AptError(Exception):
    """apt refused; its own words."""

    @property
    def is_mid_sync(self) -> bool:
        """Whether waiting may cure it."""
        return bool(MID_SYNC.search(str(self))) and not OUT_OF_REACH.search(str(self))


def complaint(out: str, err: str) -> str:
    """The lines of apt's output that say what is wrong."""
    lines = [line for line in err.splitlines() if line.startswith(("E:", "W:", "dpkg:"))]
    unmet = re.findall(r"^ \S.* : .*$", out, re.MULTILINE)
    return "\n".join(dict.fromkeys([*unmet, *lines])) or (err or out).strip()[-2000:]


def parse_steps(text: str) -> list[Step]:
    """What `apt-get --simulate` says that it would do."""
    return [
        Step(action, name, version, before) for action, name, before, version in STEP.findall(text)
    ]


def parse_installed(text: str) -> dict[str, str]:
    """Installed packages of `dpkg-query -W -f '${Package}\\t${Version}\\t${db:Status-Abbrev}\\n'`."""
    rows = [line.split("\t") for line in text.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2][1:2] == "i"}


class Apt:
    """apt-get, apt-cache and dpkg of one host.

    Args:
        run: Runs a command; returns its status, output and complaints.
        scratch: A folder of this call.
        preferences: Name of the file below apt's preferences that holds the stack's versions.
    """

    def __init__(self, run: Run, scratch: str, preferences: str) -> None:
        self.run, self.scratch = run, scratch
        self.preferences = preferences
        self.options: list[str] = []

    # -- state ------------------------------------------------------------------------------
    def pretend(self, repositories: Iterable[Mapping[str, Any]]) -> None:
        """From now on answer as if the repositories were there, and their doubles were not.

        Args:
            repositories: name, url, suites, components and key (armored) of each.
        """
        sources, lists = f"{self.scratch}/sources", f"{self.scratch}/lists"
        os.makedirs(sources, exist_ok=True)
        wanted = list(repositories)
        off = doubles(wanted)
        for path in source_files():
            with open(f"{sources}/{os.path.basename(path)}", "w", encoding="utf-8") as stream:
                stream.write(off.get(path) or gpu_hardware.read(path))
        for repository in wanted:
            key = f"{self.scratch}/{repository['name']}.asc"
            with open(key, "w", encoding="utf-8") as stream:
                stream.write(repository["key"])
            with open(f"{sources}/{repository['name']}.sources", "w", encoding="utf-8") as stream:
                stream.write(sources_text(repository, key))
        if not os.path.isdir(lists):  # spares the network what the host has
            shutil.copytree("/var/lib/apt/lists", lists, ignore=shutil.ignore_patterns("lock"))
        self.options = [
            "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={sources}",
            "-o", f"Dir::State::Lists={lists}",
            "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
            "-o", "APT::Sandbox::User=root",
        ]  # fmt: skip

    def update(self) -> None:
        """Read the package lists anew.

        Raises:
            AptError: a list could not be had.
            Refusal: two files of the host give one repository two keys.
        """
        code, out, err = self.run(["apt-get", *self.options, "update"])
        if "Conflicting values set for option Signed-By" in err:
            raise Refusal(
                f"two files below {SOURCES_FOLDER} give one repository two keys: "
                + complaint(out, err),
                "remove the one that is not Rackhand's (`grep -r Signed-By /etc/apt`)",
            )
        if code != 0:
            raise AptError(complaint(out, err))

    # -- questions --------------------------------------------------------------------------
    def installed(self, *patterns: str) -> dict[str, str]:
        """Installed packages and their versions."""
        form = "${Package}\\t${Version}\\t${db:Status-Abbrev}\\n"
        return parse_installed(self.run(["dpkg-query", "-W", "-f", form, *patterns])[1])

    def names(self, prefix: str) -> list[str]:
        """Names of packages in the index that start so."""
        return sorted(self.run(["apt-cache", *self.options, "pkgnames", prefix])[1].split())

    def versions(self, *names: str, url: str = "", without: str = "") -> dict[str, list[str]]:
        """Versions in the index, newest first.

        Args:
            names: Packages.
            url: Only what this repository offers.
            without: Not what this repository offers.
        """
        found: dict[str, list[str]] = {name: [] for name in names}
        out = self.run(["apt-cache", *self.options, "madison", *names])[1]
        for line in out.splitlines():
            name, version, origin = (part.strip() for part in line.split("|"))
            ours = origin.startswith(url.rstrip("/")) if url else True
            other = bool(without) and origin.startswith(without.rstrip("/"))
            if ours and not other and origin.endswith("Packages") and version not in found[name]:
                found[name].append(version)
        return found

    def simulate(self, words: Sequence[str], preferences: str) -> list[Step]:
        """What apt would do for these words under these preferences.

        Raises:
            AptError: it would not.
        """
        folder = f"{self.scratch}/preferences"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        for path in glob.glob(f"{PREFERENCES_FOLDER}/*"):
            # A pin of NVIDIA's own would argue with ours.
            if not os.path.basename(path).startswith((self.preferences, "nvidia-driver-pinning")):
                shutil.copy(path, folder)
        with open(f"{folder}/{self.preferences}", "w", encoding="utf-8") as stream:
            stream.write(preferences)
        parts = ["-o", f"Dir::Etc::PreferencesParts={folder}"]
        code, out, err = self.run(["apt-get", *parts, *self._install(), "--simulate", *words])
        if code != 0:
            raise AptError(complaint(out, err))
        return parse_steps(out)

    def _install(self) -> list[str]:
        return [
            *self.options, "-o", f"DPkg::Lock::Timeout={LOCK_WAIT_S}",
            "-o", "APT::Ignore-Hold=true", "install", "--yes", "--no-install-recommends",
            "--allow-downgrades", "--allow-change-held-packages",
        ]  # fmt: skip

    # -- changes ----------------------------------------------------------------------------
    def download(self, words: Sequence[str]) -> None:
        """Fetch what the words need, before anything changes.

        Raises:
            AptError: a package could not be had.
        """
        os.makedirs(ARCHIVES, exist_ok=True)
        self._do("--download-only", *words)

    def install(self, words: Sequence[str]) -> None:
        """Carry the words out, in one transaction.

        Raises:
            AptError: a package failed on its way.
        """
        self._do(*words)

    def _do(self, *words: str) -> None:
        command = [
            "apt-get", "-o", f"Dir::Cache::Archives={ARCHIVES}",
            "-o", "APT::Keep-Downloaded-Packages=true",
            "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
            *self._install(), *words,
        ]  # fmt: skip
        code, out, err = self.run(command)
        if code != 0:
            raise AptError(complaint(out, err))

    def mend(self) -> None:
        """Finish what an earlier transaction left half done.

        Raises:
            AptError: dpkg cannot.
        """
        if self.run(["dpkg", "--audit"])[1].strip():
            code, out, err = self.run(["dpkg", "--configure", "-a"])
            if code != 0:
                raise AptError(complaint(out, err))

    def release_holds(self, names: Iterable[str]) -> list[str]:
        """Lift the holds on these packages: the preferences hold them, and let an upgrade through."""
        held = sorted(set(self.run(["apt-mark", "showhold"])[1].split()) & set(names))
        if held:
            self.run(["apt-mark", "unhold", *held])
        return held


def source_files() -> list[str]:
    """The files that name apt's repositories."""
    return [p for p in [SOURCES_FILE, *sorted(glob.glob(f"{SOURCES_FOLDER}/*"))]
            if p.endswith((".list", ".sources")) and os.path.isfile(p)]  # fmt: skip


def doubles(repositories: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Files of others that name a repository of ours, and their text without it."""
    known = list(repositories)
    ours = {f"{SOURCES_FOLDER}/{repository['name']}.sources" for repository in known}
    texts = {path: gpu_hardware.read(path) for path in source_files() if path not in ours}
    new = {p: without_doubles(text, p.endswith(".list"), known) for p, text in texts.items()}
    return {path: text for path, text in new.items() if text != texts[path]}


def kept_package(name: str, version: str) -> str:
    """Path of a package that an earlier transaction kept; empty if it is not there."""
    found = glob.glob(f"{ARCHIVES}/{name}_{version.replace(':', '%3a')}_*.deb")
    return found[0] if found else ""


def switch_off_doubles(repositories: Iterable[Mapping[str, Any]], check: bool) -> list[str]:
    """Leave each repository one file, and so one key; what was done, or would be."""
    off = doubles(repositories)
    for path, text in off.items():
        if not check:
            driver_record.replace(path, text)
    return [f"switch off in {path} what stands in a file of its own" for path in off]


def forget_packages(keep: Mapping[str, str], also: Mapping[str, str]) -> None:
    """Remove kept packages but those of two sets of versions."""
    wanted = {kept_package(n, v) for versions in (keep, also) for n, v in versions.items()}
    for path in glob.glob(f"{ARCHIVES}/*.deb"):
        if path not in wanted:
            os.unlink(path)


def patiently(apt: Apt, plan: Callable[[], Plan], patience_s: float) -> Plan:
    """Read the lists, plan and download; again while the mirror is in mid-sync.

    Args:
        apt: The host's apt.
        plan: Makes the plan from the lists as they are now.
        patience_s: Seconds to go on trying; 0 asks once and downloads nothing (check mode).

    Raises:
        AptError: the mirror did not recover, or apt has another complaint; nothing was installed.
        Refusal: the plan is not what was asked for.
    """
    end, wait = time.monotonic() + patience_s, FIRST_WAIT_S
    while True:
        try:
            apt.update()
            made = plan()
            if patience_s and made.words():
                apt.download(made.words())
            return made
        except AptError as error:
            if not error.is_mid_sync or time.monotonic() + wait > end:
                raise
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
