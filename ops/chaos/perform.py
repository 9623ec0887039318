"""Carry out steps: scripts over SSH, and what the lab itself does on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from ops.chaos import certificate, network, record
from ops.chaos.step import Act, Shell, Step
from ops.errors import RemoteError
from ops.lab import power
from ops.lab.fleet_plan import LabPlan
from ops.lab.gpu import hosts as gpu_hosts
from ops.lab.gpu.catalogue import repaired
from ops.lab.gpu.description import Machine
from ops.lab.inventory import ssh_options
from ops.lab.mirror import server

CONNECT_SECONDS = 10
SCRIPT_SECONDS = 300  # a package may have to be fetched, a database may have to stop
TAIL = 800  # characters of a failed script's words that a person sees


def perform(plan: LabPlan, step: Step) -> str:
    """Carry out a step.

    Returns:
        What it printed.

    Raises:
        RemoteError: The host cannot be reached, or the script failed; its last words are told.
        OpsError: This machine could not do its part.
    """
    if isinstance(step, Shell):
        return shell(plan, step)
    return ACTS[step.verb](plan, step) or ""


def shell(plan: LabPlan, step: Shell) -> str:
    """Run a script on a host as root."""
    words = ["ssh", *ssh_options(plan), "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
    try:
        done = subprocess.run(
            [*words, plan.address(step.host), step.script],
            input=step.stdin, capture_output=True, text=True, check=False, timeout=SCRIPT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as problem:
        raise RemoteError(
            f"The script did not end in {SCRIPT_SECONDS} s", place=step.host,
            cure="ops chaos end all; ops lab status",
        ) from problem  # fmt: skip
    if done.returncode != 0:
        raise RemoteError(
            f"{step.host}: {(done.stderr or done.stdout).strip()[-TAIL:] or 'it failed'}",
            place=str(step)[:200],
            cure="ops lab status, then the command again; ops chaos end all",
        )
    return done.stdout


def _delay(plan: LabPlan, step: Act) -> str | None:
    if not step.words:
        network.undelay(plan, step.host)
        return None
    return network.delay(plan, step.host, int(step.words[0]))


def _power_on(plan: LabPlan, step: Act) -> None:
    power.start(plan, step.host)
    power.wait_until_up(plan, step.host)


def _certificate(plan: LabPlan, step: Act) -> None:
    shell(plan, Shell(step.host, step.words[0], certificate.expired_pair()))


def _gpu_set(plan: LabPlan, step: Act) -> None:
    index, change = step.words
    gpu_hosts.change(plan, step.host, lambda machine: machine.change(int(index), [change]))


def _gpu_repair(plan: LabPlan, step: Act) -> None:
    index = int(step.words[0])

    def heal(machine: Machine) -> Machine:
        return machine.with_gpu(index, repaired(machine.gpu(index), index, machine.nvswitch))

    gpu_hosts.change(plan, step.host, heal)


def _gpu_xid(plan: LabPlan, step: Act) -> None:
    gpu_hosts.inject_xid(plan, step.host, int(step.words[0]), int(step.words[1]))


ACTS: dict[str, Callable[[LabPlan, Act], str | None]] = {
    "network": lambda plan, _: network.apply(plan, record.load(plan.name)),
    "delay": _delay,
    "power cut": lambda plan, step: power.cut_power(plan, step.host),
    "power off": lambda plan, step: power.stop_at_once(plan, step.host),
    "power on": _power_on,
    "mirror": lambda plan, step: server.choose(plan.paths, step.words[0]),
    "certificate": _certificate,
    "gpu set": _gpu_set,
    "gpu repair": _gpu_repair,
    "gpu xid": _gpu_xid,
}
