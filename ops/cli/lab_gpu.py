"""`ops lab gpu`: the simulated GPUs of a lab's hosts, and the faults they can have."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ops.lab.fleet_plan import LabPlan
    from ops.lab.gpu.description import Gpu, Machine

app = typer.Typer(
    help="Simulated GPUs of the lab's hosts: show them, change what they read, break them.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Option("--name", "-n", help="The lab.")]
Host = Annotated[str, typer.Argument(help="A host of the lab: node1, node2, …")]
Index = Annotated[int, typer.Argument(help="NVML's index of the GPU.")]
DEFAULT = "lab"


@app.command()
def show(
    host: Annotated[str | None, typer.Argument(help="One host; all GPU hosts without it.")] = None,
    name: Name = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, every reading.")] = False,
) -> None:
    """Show the GPUs of hosts as their descriptions say now."""
    from ops.lab.gpu import hosts

    plan = _plan(name, host)
    wanted = [host] if host else plan.groups()["gpu"]
    found = {each: hosts.read(plan, each) for each in wanted}
    if as_json:
        typer.echo(json.dumps({each: asdict(machine) for each, machine in found.items()}, indent=2))
    else:
        _print(found)


@app.command("set")
def set_values(
    host: Host,
    gpu: Annotated[str, typer.Argument(help="NVML's index of the GPU, or `machine`.")],
    changes: Annotated[list[str], typer.Argument(help="key=value …")],
    name: Name = DEFAULT,
) -> None:
    """Change what a GPU reads, its state or its processes; the next call on the host shows it.

    Examples: ops lab gpu set node1 0 temperature=91 clocks_event_reasons=0x40;
    ops lab gpu set node1 1 state=lost; ops lab gpu set node1 0 process=1234:60000:python;
    ops lab gpu set node1 machine secure_boot=yes
    """
    from ops.errors import InputError
    from ops.lab.gpu import hosts

    plan = _plan(name, host)
    if gpu == "machine":
        hosts.change(plan, host, lambda machine: machine.change_machine(changes))
    elif gpu.isdecimal():
        hosts.change(plan, host, lambda machine: machine.change(int(gpu), changes))
    else:
        raise InputError(f"{gpu!r} is no GPU", cure="its index, such as 0, or `machine`")
    typer.echo(f"{host} {'machine' if gpu == 'machine' else f'GPU {gpu}'}: {' '.join(changes)}")


@app.command()
def xid(
    host: Host,
    index: Index,
    code: Annotated[int, typer.Argument(help="The XID: 79 off the bus, 48 uncorrected ECC …")],
    name: Name = DEFAULT,
    event_only: Annotated[
        bool, typer.Option("--event-only", help="Report it, and leave the readings as they are.")
    ] = False,
) -> None:
    """Let a GPU report an XID error, with what follows from it (79 loses the GPU)."""
    from ops.lab.gpu import hosts

    hosts.inject_xid(_plan(name, host), host, index, code, consequences=not event_only)
    typer.echo(f"{host} GPU {index} reported XID {code}")


@app.command()
def reset(
    host: Host,
    index: Annotated[int | None, typer.Argument(help="One GPU; all without it.")] = None,
    name: Name = DEFAULT,
) -> None:
    """Make GPUs healthy and idle again, whatever happened to them."""
    from ops.lab.gpu import hosts
    from ops.lab.gpu.catalogue import repaired

    def heal(machine: Machine) -> Machine:
        chosen = range(len(machine.gpus)) if index is None else [index]
        for each in chosen:
            gpu = repaired(machine.gpu(each), each, machine.nvswitch)
            machine = machine.with_gpu(each, gpu)
        return machine

    hosts.change(_plan(name, host), host, heal)
    typer.echo(f"{host} {'all GPUs' if index is None else f'GPU {index}'}: healthy")


def _plan(name: str, host: str | None) -> LabPlan:
    from ops.lab import reconcile
    from ops.lab.commands import require_lab_tools
    from ops.lab.fleet_plan import require_plan

    require_lab_tools()
    plan = require_plan(name)
    if host:
        reconcile.check_hosts(plan, [host])
    return plan


def _print(found: dict[str, Machine]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("host", "gpu", "name", "state", "°C", "MiB", "load"):
        table.add_column(column, no_wrap=True)
    table.add_column("processes and faults", overflow="fold")
    for host, machine in found.items():
        for index, gpu in enumerate(machine.gpus):
            heat, load = (gpu.values.get(key) for key in ("temperature", "utilization_gpu"))
            used = f"{gpu.memory_used_mib}/{gpu.values.get('memory_mib')}"
            notes = [f"{each.pid}:{each.name}" for each in gpu.processes] + _faults(gpu, index)
            name = gpu.name.removeprefix("NVIDIA ")
            cells = [name, gpu.state, str(heat), used, f"{load} %", " ".join(notes)]
            table.add_row(host, str(index), *cells)
    Console().print(table)


def _faults(gpu: Gpu, index: int) -> list[str]:
    """Readings of errors that are not as on a healthy GPU."""
    from ops.lab.gpu.catalogue import repaired
    from ops.lab.gpu.keys import readings

    telling = ("ecc_", "retired_", "remapped_", "nvlink_", "recovery_", "clocks_event")
    fresh, known = repaired(gpu, index).values, readings()
    return [
        f"{key}={known[key].render(value)}"
        for key, value in gpu.values.items()
        if key.startswith(telling) and value != fresh[key]
    ]
