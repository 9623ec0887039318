"""Control groups: the one true list of a host's processes, and one write that ends them all.

A group is found by its name and never by a recorded process id, so a recycled id cannot be hit
and a process that forks meanwhile cannot slip away.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ops.errors import OpsError

PATIENCE = 20.0  # seconds until a killed group must be empty


def mount_point() -> Path:
    """Where this machine has cgroup v2: `/sys/fs/cgroup`, or below it on a hybrid layout.

    Raises:
        OpsError: There is none, or the kernel cannot kill a group (before 5.14).
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    raise OpsError(
        "No cgroup v2 hierarchy is mounted",
        place="/sys/fs/cgroup",
        cure="mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
    )


@dataclass(frozen=True)
class Group:
    """A control group below `rackhand/`, named by what lives in it."""

    name: str

    @property
    def path(self) -> Path:
        """Its folder in the cgroup v2 hierarchy."""
        return mount_point() / "rackhand" / self.name

    def create(self) -> Path:
        """Make the group; it may exist. Controllers are passed down where the machine has them."""
        path = self.path
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed([path, *path.parents[: len(Path(self.name).parts) + 1]]):
            with contextlib.suppress(OSError, ValueError):
                controllers = (folder / "cgroup.controllers").read_text().split()
                enabled = " ".join(f"+{controller}" for controller in controllers)
                if folder != path and enabled:
                    (folder / "cgroup.subtree_control").write_text(enabled)
        return path

    def joiner(self) -> Callable[[], None]:
        """A `preexec_fn` that puts a child into the group before its program starts."""
        members = self.create() / "cgroup.procs"

        def join() -> None:
            members.write_text("0")

        return join

    def pids(self) -> list[int]:
        """Processes in the group and below it, as seen now."""
        found: list[int] = []
        for procs in self.path.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in procs.read_text().split()]
        return found

    def kill(self) -> None:
        """End every process in the group and below it, at once."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """End what lives in the group and take the group away.

        Raises:
            OpsError: Something in it does not die, which only the kernel can explain.
        """
        until = time.monotonic() + PATIENCE
        while self.path.exists():
            self.kill()
            if self._remove_folders():
                return
            if time.monotonic() > until:
                raise OpsError(
                    f"Processes {self.pids()} do not end after SIGKILL",
                    place=str(self.path),
                    cure="dmesg | tail; then run the command again",
                )
            time.sleep(0.02)

    def _remove_folders(self) -> bool:
        folders = sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True)
        try:
            for folder in [*folders, self.path]:
                folder.rmdir()
        except FileNotFoundError:
            return not self.path.exists()
        except OSError:
            return False
        return True
