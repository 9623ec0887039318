"""The GPUs of a lab's hosts: their description is read and changed over SSH."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable

from ops.errors import InputError, OpsError, RemoteError
from ops.lab.fleet_plan import LabPlan
from ops.lab.gpu import xids
from ops.lab.gpu.description import Machine, parse_machine
from ops.lab.inventory import ssh_options

FOLDER = "/etc/rackhand-simulator"
DESCRIPTION = f"{FOLDER}/gpus.conf"
STATE = "/run/rackhand-simulator"
EVENTS = f"{STATE}/xid"
KERNEL_LOG = f"{STATE}/kernel.log"  # what the simulated kernel logs; the journal has it too
CHANGED_MEANWHILE = 75  # sysexits: temporary failure
ATTEMPTS = 5
TIMEOUT = 30  # seconds

# The lock is the one that the library takes when nvidia-smi changes the file.
REPLACE = (
    f"flock {DESCRIPTION}.lock sh -c '"
    f'[ "$(sha256sum < {DESCRIPTION})" = "{{digest}}  -" ] || exit {CHANGED_MEANWHILE}; '
    f"cat > {DESCRIPTION}.new && mv -f {DESCRIPTION}.new {DESCRIPTION}'"
)


def read(plan: LabPlan, host: str) -> Machine:
    """The GPUs of a host as its description says now.

    Raises:
        InputError: The host has none, or the file is not one.
        RemoteError: The host cannot be reached.
    """
    return parse_machine(_text(plan, host), f"{host}:{DESCRIPTION}")


def change(plan: LabPlan, host: str, edit: Callable[[Machine], Machine]) -> Machine:
    """Change a host's GPUs; a change that somebody makes meanwhile is kept.

    Args:
        plan: The lab.
        host: One of its hosts.
        edit: From the present machine to the wanted one.

    Returns:
        The machine after the change.

    Raises:
        InputError: What `edit` raises, or the host has no GPUs.
        RemoteError: The host cannot be reached or refuses.
    """
    for _ in range(ATTEMPTS):
        text = _text(plan, host)
        machine = edit(parse_machine(text, f"{host}:{DESCRIPTION}"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        done = _ssh(plan, host, REPLACE.format(digest=digest), machine.render())
        if done.returncode == 0:
            return machine
        if done.returncode != CHANGED_MEANWHILE:
            raise RemoteError(f"The change failed: {done.stderr.strip()}", place=host)
    raise OpsError(f"{DESCRIPTION} never stood still", place=host, cure="try again")


def inject_xid(plan: LabPlan, host: str, index: int, code: int, consequences: bool = True) -> None:
    """Let a GPU report an XID: to NVML's event sets, to the kernel log, and in its readings.

    Args:
        plan: The lab.
        host: One of its hosts.
        index: NVML's index of the GPU.
        code: The XID.
        consequences: Change the readings too (XID 79 loses the GPU, XID 48 counts an error …).

    Raises:
        InputError: No such GPU or XID.
        RemoteError: The host cannot be reached.
    """
    gpu = read(plan, host).gpu(index)
    xids.suffer(gpu, code)  # refuses what is no XID before anything is written
    log = shlex.quote(xids.log_line(gpu, code))
    tell = f"tee -a {KERNEL_LOG} | systemd-cat -t kernel -p err"
    done = _ssh(plan, host, f"echo '{index} {code}' >> {EVENTS} && echo {log} | {tell}")
    if done.returncode != 0:
        raise RemoteError(f"The XID was not reported: {done.stderr.strip()}", place=host)
    if consequences:
        change(
            plan,
            host,
            lambda machine: machine.with_gpu(index, xids.suffer(machine.gpu(index), code)),
        )


def _text(plan: LabPlan, host: str) -> str:
    done = _ssh(plan, host, f"cat {DESCRIPTION}")
    if done.returncode == 255:  # ssh's own failure
        raise RemoteError(f"{host} does not answer: {done.stderr.strip()}", cure="ops lab up")
    if done.returncode != 0:
        raise InputError(f"{host} has no simulated GPUs", cure='ops lab up --gpu "H100:2"')
    return done.stdout


def _ssh(
    plan: LabPlan, host: str, command: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    words = ["ssh", *ssh_options(plan), "-o", f"ConnectTimeout={TIMEOUT}"]
    return subprocess.run(
        [*words, plan.address(host), command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
