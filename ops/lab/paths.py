"""Where the lab keeps what it makes: caches keyed by content, and the state of each lab."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("RACKHAND_CACHE", "/var/cache/rackhand"))
STATE = Path(os.environ.get("RACKHAND_STATE", "/var/lib/rackhand"))
REPOSITORY = Path(__file__).resolve().parents[2]


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    candidate = path.with_name(f".{path.name}.{os.getpid()}")
    candidate.unlink(missing_ok=True)
    descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    candidate.replace(path)


@dataclass(frozen=True)
class HostPaths:
    """One host's folders: `upper` is all that the host has written."""

    root: Path

    @property
    def upper(self) -> Path:
        """The host's own files over the image."""
        return self.root / "upper"

    @property
    def work(self) -> Path:
        """The overlay's scratch folder."""
        return self.root / "work"

    @property
    def mount(self) -> Path:
        """Where the supervisor, in its own mount namespace, joins image and upper."""
        return self.root / "root"

    @property
    def config(self) -> Path:
        """What the supervisor needs to know; written last, so that it marks a finished host."""
        return self.root / "host.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "supervisor.lock"

    @property
    def log(self) -> Path:
        """Console of the host and the words of its supervisor."""
        return self.root / "console.log"

    @property
    def snapshots(self) -> Path:
        """Copies of `upper`, by name."""
        return self.root / "snapshots"


@dataclass(frozen=True)
class LabPaths:
    """One lab's folder and the files in it."""

    name: str

    @property
    def root(self) -> Path:
        """The lab's folder; it is gone when the lab is."""
        return STATE / "labs" / self.name

    @property
    def wanted(self) -> Path:
        """The wanted state."""
        return self.root / "lab.json"

    @property
    def hosts(self) -> Path:
        """Folders of the hosts."""
        return self.root / "hosts"

    @property
    def private_key(self) -> Path:
        """The SSH key that opens every host of this lab."""
        return self.root / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Host keys, written at creation, so that checking stays strict."""
        return self.root / "ssh" / "known_hosts"

    @property
    def authority(self) -> Path:
        """Pebble's certificate authority and server certificate."""
        return self.root / "acme"

    @property
    def mirror(self) -> Path:
        """Which state the lab's package mirror is in: the link `current`."""
        return self.root / "mirror"

    @property
    def lock(self) -> Path:
        """Serialises commands on this lab; outside its folder, which comes and goes."""
        return STATE / "locks" / f"{self.name}.lock"

    @property
    def inventory(self) -> Path:
        """Folder of the Ansible inventory."""
        name = "lab" if self.name == "lab" else f"lab-{self.name}"
        return REPOSITORY / "inventories" / name

    def host(self, host: str) -> HostPaths:
        """Folders of one host."""
        return HostPaths(self.hosts / host)
