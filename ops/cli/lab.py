"""`ops lab`: a rehearsal fleet of booted hosts on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ops.cli.lab_gpu import app as gpu_app

app = typer.Typer(
    help="A rehearsal fleet: booted hosts on this machine, to try things before production.",
    no_args_is_help=True,
)
mirror_app = typer.Typer(help="The package mirror of a lab with GPUs.", no_args_is_help=True)
network_app = typer.Typer(help="The way outside of a lab.", no_args_is_help=True)
app.add_typer(gpu_app, name="gpu")
app.add_typer(network_app, name="network")
app.add_typer(mirror_app, name="mirror")

Name = Annotated[str, typer.Option("--name", "-n", help="The lab; several stand side by side.")]
Host = Annotated[str, typer.Argument(help="A host of the lab: node1, node2, …, or outside.")]
SnapshotName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the snapshot.")]
DEFAULT = "lab"
QUICK = 1.0  # seconds below which the time of a step is not worth a word


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what goes on: one spinner for people, plain lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    step, since = "", time.monotonic()

    def tell(words: str) -> None:
        nonlocal step, since
        if step and words.startswith(f"{step}: "):  # news from the same step
            spinner.update(words)
            return
        took = time.monotonic() - since
        if step and took > QUICK:
            console.print(f"[green]✓[/] {step} [dim]{took:.0f} s[/]", highlight=False)
        step, since = words, time.monotonic()
        if words.startswith("warning:"):
            console.print(f"[yellow]{words}[/]")
        elif words:
            spinner.update(f"{words} …")
            if not console.is_terminal:
                console.print(f"{words} …", highlight=False)

    with console.status("starting …") as spinner:
        yield tell
        tell("")


@app.command()
def up(
    hosts: Annotated[int | None, typer.Option(help="Hosts of the fleet (1 to 20).")] = None,
    image: Annotated[
        str | None, typer.Option(help="bookworm, trixie or ubuntu-24.04-facade.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Simulated GPUs of each gpu host, such as H100:2.")
    ] = None,
    name: Name = DEFAULT,
) -> None:
    """Boot a lab, or bring it back to what it should be.

    Example: ops lab up --hosts 3 --image trixie
    Example: ops lab up --image ubuntu-24.04-facade --gpu H100:2
    """
    from ops.lab import reconcile
    from ops.lab.commands import require_lab_tools

    require_lab_tools()
    started = time.monotonic()
    with _progress() as tell:
        plan = reconcile.up(name, hosts, image, tell, gpu)
    typer.echo(
        f"Lab {name}: {', '.join(plan.hosts)} up in {time.monotonic() - started:.1f} s; "
        f"inventory {os.path.relpath(plan.paths.inventory)}"
    )


@app.command()
def down(name: Name = DEFAULT) -> None:
    """Take a lab away with all that it made; caches stay."""
    from ops.lab import reconcile
    from ops.lab.commands import require_lab_tools

    require_lab_tools()
    with _progress() as tell:
        there_was = reconcile.down(name, tell)
    typer.echo(f"Lab {name} is gone" if there_was else f"There was no lab {name}")


@app.command()
def status(
    name: Name = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """What is true of each host of a lab now. Exit code 1 if a host is not up."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from ops.lab import reconcile

    with reconcile.existing(name) as plan:
        found = reconcile.status(plan)
    if as_json:
        record: dict[str, Any] = {"name": plan.name, "subnet": plan.subnet}
        typer.echo(json.dumps(record | {"hosts": [asdict(host) for host in found]}, indent=2))
    else:
        table = Table("host", "address", "image", "state", "groups", title=f"Lab {name}")
        for host in found:
            state = "up" if host.answers else "booting" if host.supervised else "off"
            table.add_row(host.name, host.address, host.image, state, " ".join(host.groups))
        Console().print(table)
    if not all(host.answers for host in found):
        raise typer.Exit(1)


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(
    host: Host,
    command: Annotated[list[str] | None, typer.Argument(help="Command, after --.")] = None,
    name: Name = DEFAULT,
) -> None:
    """Open a shell on a host, or run a command there: ops lab ssh node1 -- uptime."""
    from ops.lab import reconcile
    from ops.lab.commands import require_lab_tools
    from ops.lab.fleet_plan import require_plan
    from ops.lab.inventory import ssh_options

    require_lab_tools()
    plan = require_plan(name)
    reconcile.check_hosts(plan, [host])
    words = ["ssh", *ssh_options(plan), plan.address(host), *(command or [])]
    raise typer.Exit(subprocess.call(words))


@app.command()
def reset(
    host: Annotated[str | None, typer.Argument(help="One host; all without it.")] = None,
    name: Name = DEFAULT,
) -> None:
    """Give hosts back the files they were created with."""
    from ops.lab import reconcile

    with _progress() as tell, reconcile.existing(name) as plan:
        hosts = [host] if host else plan.hosts
        reconcile.check_hosts(plan, hosts)
        tell(f"resetting {', '.join(hosts)}")
        reconcile.reset(plan, hosts)
    typer.echo(f"Fresh: {', '.join(hosts)}")


@app.command()
def snapshot(host: Host, snapshot_name: SnapshotName, name: Name = DEFAULT) -> None:
    """Keep a host's files under a name; the host is shut down and booted for it."""
    from ops.lab import reconcile, snapshots

    with _progress() as tell, reconcile.existing(name) as plan:
        reconcile.check_hosts(plan, [host])
        tell(f"taking a snapshot of {host}")
        snapshots.take(plan, host, snapshot_name)
    typer.echo(f"{host} is kept as {snapshot_name}")


@app.command()
def restore(host: Host, snapshot_name: SnapshotName, name: Name = DEFAULT) -> None:
    """Give a host the files of a snapshot and boot it."""
    from ops.lab import reconcile, snapshots

    with _progress() as tell, reconcile.existing(name) as plan:
        reconcile.check_hosts(plan, [host])
        tell(f"restoring {host}")
        snapshots.restore(plan, host, snapshot_name)
    typer.echo(f"{host} is as it was at {snapshot_name}")


@app.command()
def kill(host: Host, name: Name = DEFAULT) -> None:
    """Cut a host's power; it boots again, as a server does when power returns."""
    from ops.lab import power, reconcile

    with reconcile.existing(name) as plan:
        reconcile.check_hosts(plan, [host])
        power.cut_power(plan, host)
    typer.echo(f"{host} lost its power and boots again")


@app.command()
def environment() -> None:
    """Build the engine environment that all hosts share (vLLM for CPUs), unless it is there."""
    from ops.lab import environment as engine
    from ops.lab.commands import require_lab_tools

    require_lab_tools()
    with _progress() as tell:
        folder = engine.ensure(tell)
    typer.echo(f"Every host's {engine.HOME} is {folder}")


@mirror_app.command("use")
def use_mirror(
    state: Annotated[str, typer.Argument(help="2026-06, 2026-11, mid-sync or gone.")],
    name: Name = DEFAULT,
) -> None:
    """Move the mirror to another state, as time would."""
    from ops.lab import reconcile
    from ops.lab.mirror import server

    with reconcile.existing(name) as plan:
        server.chosen(plan.paths)
        server.choose(plan.paths, state)
    typer.echo(f"The mirror of lab {name} is in state {state}")


@mirror_app.command("show")
def show_mirror(name: Name = DEFAULT) -> None:
    """Print the state that the mirror is in."""
    from ops.lab import reconcile
    from ops.lab.mirror import server

    with reconcile.existing(name) as plan:
        typer.echo(server.chosen(plan.paths))


@network_app.command("close")
def close_network(name: Name = DEFAULT) -> None:
    """Cut the hosts' way outside: they reach each other, `outside` and this machine's bridge."""
    from ops.lab import network, reconcile

    with reconcile.existing(name) as plan:
        network.close(plan)
        typer.echo(f"Lab {name} is closed; this machine is {plan.gateway} there")


@network_app.command("open")
def open_network(name: Name = DEFAULT) -> None:
    """Give the hosts the way outside back."""
    from ops.lab import network, reconcile

    with reconcile.existing(name) as plan:
        network.reopen(plan)
    typer.echo(f"Lab {name} is open")


@app.command()
def model() -> None:
    """Train the demo model that the lab serves, unless it is there."""
    from ops.lab import demo_model
    from ops.lab.commands import require_lab_tools

    require_lab_tools()
    with _progress() as tell:
        folder = demo_model.ensure(tell)
    typer.echo(f"The demo model (it knows its own dialogues and no more) is {folder}")


def main() -> None:
    """Run `ops lab` alone, with errors as `ops` prints them."""
    from ops.errors import OpsError

    try:
        app()
    except OpsError as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(problem.exit_code)


if __name__ == "__main__":
    main()
