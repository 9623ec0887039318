"""Keep one host booted, as power and firmware would: `python -m ops.lab.supervisor FOLDER`.

It runs in a mount namespace of its own, so that the host's overlay vanishes with its last
process, and holds the folder's lock as its sign of life. A host that ends (a reboot, a crash)
is booted again; SIGTERM shuts the host down in order and ends the supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ops.lab.cgroup import Group
from ops.lab.commands import run
from ops.lab.locks import try_lock
from ops.lab.paths import HostPaths

CGROUPS = Path("/sys/fs/cgroup")
NSPAWN_FILES = Path("/run/systemd/nspawn")
SHUTDOWN_PATIENCE = 60.0  # seconds for an orderly shutdown before the power is cut
GOOD_RUN = 10.0  # seconds after which a host counts as booted and the back-off starts anew
FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0  # seconds between an end and the next boot
MOUNT_PATIENCE = 10.0  # seconds until a killed predecessor has let go of the overlay


class Supervisor:
    """Boots the host of a folder again and again.

    Args:
        paths: The host's folder.
    """

    def __init__(self, paths: HostPaths) -> None:
        self.paths = paths
        self.config = self._read_config()
        self.guest = Group(f"{self.config['group']}/guest")
        self.stopping = False
        self.container: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Mount, boot, wait, boot again; return once told to stop."""
        self._mount_overlay()
        _hide_nspawn_files()
        _use_unified_cgroups()
        delay = FIRST_DELAY
        while not self.stopping:
            started = time.monotonic()
            self.guest.remove()  # the guest outlives its container's own process
            self._remove_link()
            join_guest = self.guest.joiner()
            self.config = self._read_config()  # a reboot takes what `up` changed meanwhile
            self.container = subprocess.Popen(
                self._nspawn(),
                stdin=subprocess.DEVNULL,
                preexec_fn=join_guest,  # noqa: PLW1509 - one thread
            )
            if self.stopping:  # the signal came between the test above and the start
                self.container.terminate()
            code = self.container.wait()
            ran = time.monotonic() - started
            print(f"supervisor: the host ended with {code} after {ran:.1f} s", flush=True)
            delay = FIRST_DELAY if ran > GOOD_RUN else min(2 * delay, LONGEST_DELAY)
            if not self.stopping:
                time.sleep(delay)

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Shut the host down in order; cut its power if it does not end in time."""
        if self.stopping:
            self.guest.kill()
            return
        self.stopping = True
        signal.setitimer(signal.ITIMER_REAL, SHUTDOWN_PATIENCE)
        if self.container is None or self.container.poll() is not None:
            sys.exit(0)
        self.container.terminate()

    def _read_config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.paths.config.read_text())
        return config

    def _mount_overlay(self) -> None:
        layers = f"lowerdir={self.config['image']},upperdir={self.paths.upper}"
        command = ["mount", "-t", "overlay", "overlay", "-o"]
        command += [f"{layers},workdir={self.paths.work}", str(self.paths.mount)]
        until = time.monotonic() + MOUNT_PATIENCE
        while run(command, check=time.monotonic() > until).returncode != 0:
            time.sleep(0.1)

    def _remove_link(self) -> None:
        """Pull the cable of the boot before.

        It outlives a host whose network was down when the power went: sockets that wait for an
        acknowledgement keep the network namespace for minutes, and nspawn refuses its name.
        """
        run(["ip", "link", "delete", "dev", f"vb-{self.config['machine']}"], check=False)

    def _nspawn(self) -> list[str]:
        binds = [bind_option(theirs, ours) for theirs, ours in self.config["binds"].items()]
        return [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            f"--machine={self.config['machine']}",
            f"--directory={self.paths.mount}",
            "--boot",
            f"--network-bridge={self.config['bridge']}",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--capability=all",
            "--console=pipe",
            *binds,
        ]


def bind_option(theirs: str, ours: str) -> str:
    """The option that shows a host a folder of this machine read-only."""
    return f"--bind-ro={ours}:{theirs}"


def _hide_nspawn_files() -> None:
    """Let nspawn keep its locks and folders where they vanish with the host."""
    NSPAWN_FILES.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", NSPAWN_FILES])


def _use_unified_cgroups() -> None:
    """Show the host cgroup v2 alone, which systemd 257 wants, whatever this machine shows."""
    if not (CGROUPS / "cgroup.controllers").exists():
        run(["umount", "-R", CGROUPS])
        run(["mount", "-t", "cgroup2", "none", CGROUPS])


def main(folder: str) -> None:
    """Supervise the host of a folder until told to stop."""
    paths = HostPaths(Path(folder))
    if not paths.config.exists():
        sys.exit(f"supervisor: {paths.config} does not exist")
    lock = try_lock(paths.lock)
    if lock is None:
        sys.exit("supervisor: another one supervises this host")
    supervisor = Supervisor(paths)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGALRM, supervisor.stop)
    os.chdir("/")
    supervisor.run()


if __name__ == "__main__":
    main(sys.argv[1])
