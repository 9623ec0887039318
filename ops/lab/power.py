"""Switch hosts on and off: each is kept running by a supervisor process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from ops.errors import OpsError
from ops.lab.cgroup import Group
from ops.lab.fleet_plan import LabPlan
from ops.lab.locks import try_lock
from ops.lab.paths import REPOSITORY, HostPaths
from ops.lab.supervisor import bind_option

BOOT_PATIENCE = 90.0  # seconds until sshd must answer
STOP_PATIENCE = 80.0  # seconds for an orderly shutdown, longer than the supervisor's own
LOG_TAIL = 15  # lines of console shown where a host does not come up


def group_of(plan: LabPlan, host: str) -> Group:
    """The control group of all that belongs to a running host."""
    return Group(f"{plan.name}/{host}")


def is_supervised(paths: HostPaths) -> bool:
    """Whether a supervisor lives for this host."""
    if not paths.lock.exists():
        return False
    descriptor = try_lock(paths.lock)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def start(plan: LabPlan, host: str) -> None:
    """Start a host's supervisor unless it lives; what a dead one left behind is ended first."""
    paths = plan.paths.host(host)
    if is_supervised(paths):
        return
    group = group_of(plan, host)
    group.remove()
    join = Group(f"{group.name}/keeper").joiner()
    with paths.log.open("ab") as log:
        subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "private", "--"),
                *(sys.executable, "-m", "ops.lab.supervisor", str(paths.root)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=join,  # noqa: PLW1509 - no other thread runs here
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
        )


def sees_other_folders(plan: LabPlan, host: str, binds: dict[str, str]) -> bool:
    """Whether a running host was booted with other folders of this machine than it should see."""
    wanted = {bind_option(theirs, ours) for theirs, ours in binds.items()}
    for pid in Group(f"{plan.name}/{host}/guest").pids():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            if words[0] == "systemd-nspawn":
                return not wanted.issubset(words)
    return False


def wait_until_up(plan: LabPlan, host: str) -> None:
    """Wait until a host's sshd answers.

    Raises:
        OpsError: It does not; the message ends with the host's console.
    """
    until = time.monotonic() + BOOT_PATIENCE
    while time.monotonic() < until:
        if answers(plan, host):
            return
        time.sleep(0.1)
    log = plan.paths.host(host).log
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
    raise OpsError(
        f"{host} does not answer on port 22 after {BOOT_PATIENCE:.0f} s:\n{tail}",
        place=str(log),
        cure=f"ops lab reset {host} --name {plan.name}",
    )


def answers(plan: LabPlan, host: str) -> bool:
    """Whether a host's sshd greets."""
    with suppress(OSError), socket.create_connection((plan.address(host), 22), 1) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def cut_power(plan: LabPlan, host: str) -> None:
    """End a host at once, as a power loss does; its supervisor boots it again."""
    Group(f"{plan.name}/{host}/guest").kill()


def stop_at_once(plan: LabPlan, host: str) -> None:
    """End a host and its supervisor, and wait until nothing of them is left."""
    group_of(plan, host).remove()


def shut_down(plan: LabPlan, host: str) -> None:
    """Stop a host in order, so that its files are whole, and its supervisor."""
    keeper = Group(f"{plan.name}/{host}/keeper")
    for pid in keeper.pids():
        _terminate(pid, keeper)
    until = time.monotonic() + STOP_PATIENCE
    while is_supervised(plan.paths.host(host)) and time.monotonic() < until:
        time.sleep(0.05)
    stop_at_once(plan, host)


def _terminate(pid: int, group: Group) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if pid in group.pids():  # the descriptor cannot be another process from here on
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        finally:
            os.close(descriptor)


def hosts_with_processes(lab: str) -> list[str]:
    """Hosts of a lab that have a control group, whether the lab still wants them or not."""
    folder: Path = Group(lab).path
    return (
        sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []
    )
