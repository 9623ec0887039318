"""`ops driver`: the fleet's GPU drivers, moved host by host without losing a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.options import Drain, DryRun, Inventory, Json, Limit, Ready, Yes, parse_limit
from ops.cli.output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from ops.driver.move import Patience
    from ops.driver.plan import HostMove
    from ops.driver.state import DriverState
    from ops.fleet.model import Fleet, Host

app = typer.Typer(
    help="The fleet's NVIDIA drivers: what is loaded, what an upgrade would do, doing it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

To = Annotated[str, typer.Option("--to", help="Branch (595) or exact version (595.91.07).")]


@app.command()
def status(inventory: Inventory, limit: Limit = "", as_json: Json = False) -> None:
    """Show loaded and installed drivers, kernels and GPUs.

    Exit status 0: all is well; 1: a host needs a reboot or has another fault.

    Example: ops driver status -i inventories/example
    """
    from dataclasses import asdict

    from rich.console import Console

    from ops.driver.state import survey
    from ops.fleet import load

    fleet = load(inventory)
    states = survey(fleet, chosen(fleet, limit))
    if as_json:
        rows = [{**asdict(state), "findings": state.findings} for state in states]
        print_json({"hosts": rows})
    else:
        show_states(Console(highlight=False), states)
    raise typer.Exit(1 if any(state.findings for state in states) else 0)


@app.command()
def plan(inventory: Inventory, to: To, limit: Limit = "", as_json: Json = False) -> None:
    """Show what an upgrade would do on each host; nothing changes.

    Example: ops driver plan -i inventories/example --to 595
    """
    upgrade(inventory, to, limit, as_json=as_json, dry_run=True)


@app.command()
def upgrade(
    inventory: Inventory,
    to: To,
    limit: Limit = "",
    as_json: Json = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    drain_timeout: Drain = 300,
    ready_timeout: Ready = 900,
) -> None:
    """Move hosts to a branch or version, one after the other.

    Each host is drained, moved in one apt transaction, rebooted if the loaded
    module is not the installed one, proven, and let in again. The first failure
    ends it; run it again to go on.

    Example: ops driver upgrade -i inventories/example --to 595
    """
    from ops.driver.move import Patience
    from ops.driver.plan import Target
    from ops.fleet import load

    target = Target.parse(to)
    fleet = load(inventory)
    hosts = chosen(fleet, limit)
    patience = Patience(drain_timeout, ready_timeout)
    wanted = target.variables()
    if not _run(fleet, hosts, lambda _state: wanted, patience, as_json, yes, dry_run):
        return
    if limit:
        typer.echo(f"The inventory is as it was: {limit} went ahead of it to {to}")
        return
    write_back(fleet, target.branch, target.version)


@app.command()
def rollback(
    inventory: Inventory,
    limit: Limit = "",
    as_json: Json = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    drain_timeout: Drain = 300,
    ready_timeout: Ready = 900,
) -> None:
    """Bring back the exact packages that each host had before.

    Example: ops driver rollback -i inventories/example --limit gpu1
    """
    from ops.driver.move import Patience
    from ops.driver.plan import previous_variables
    from ops.fleet import load

    fleet = load(inventory)
    hosts = chosen(fleet, limit)
    patience = Patience(drain_timeout, ready_timeout)
    moves = _run(fleet, hosts, previous_variables, patience, as_json, yes, dry_run)
    targets = {(m.variables["nvidia_driver_branch"], m.to) for m in moves}
    if limit or len(targets) != 1:
        return
    branch, version = targets.pop()
    write_back(fleet, branch, version)


def write_back(fleet: Fleet, branch: str, version: str) -> None:
    """Make the inventory want what its hosts now have, so that site.yml leaves them alone."""
    from ops.fleet.desired import write_variables

    lasting = {"nvidia_driver_branch": branch, "nvidia_driver_version": version}
    for path in write_variables(fleet.inventory, "gpu", lasting):
        typer.echo(f"Wrote {version or branch} into {path}")


def _run(
    fleet: Fleet,
    hosts: tuple[Host, ...],
    wanted: Any,
    patience: Patience,
    as_json: bool,
    yes: bool,
    dry_run: bool,
) -> list[HostMove]:
    """Plan, show, ask, do; the moves that were carried out."""
    import time

    from rich.console import Console

    from ops.driver import move as moving

    console = Console(highlight=False)
    with Console(stderr=True).status("asking the hosts what apt would do …"):
        moves = moving.plan(fleet, hosts, wanted)
    if as_json:
        print_json({"moves": [m.as_record() for m in moves]})
    else:
        show_plan(console, moves)
    if dry_run:
        return []
    if not yes and any(m.needed for m in moves):
        typer.confirm("Go on?", abort=True, err=True)
    began = time.monotonic()
    progress = Console(stderr=True, highlight=False) if as_json else console
    states = moving.carry_out(fleet, moves, patience, progress)
    if not as_json:
        console.print(f"\n{len(states)} host(s) in {time.monotonic() - began:.0f} s")
        show_states(console, states)
    return moves


def chosen(fleet: Fleet, limit: str) -> tuple[Host, ...]:
    """The GPU hosts, or those of them that are named.

    Raises:
        InputError: A name is no host, or not of group `gpu`.
    """
    from ops.errors import InputError

    hosts = fleet.group("gpu")
    named = tuple(fleet.host(name) for name in parse_limit(limit)) or hosts
    for host in named:
        if host not in hosts:
            raise InputError(
                f"{host.name} is not in group gpu",
                place="--limit",
                cure="one of: " + ", ".join(h.name for h in hosts),
            )
    return named


def show_states(console: Console, states: list[DriverState]) -> None:
    """One row per host; what is wrong stands below, where there is room for it."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for heading in ("host", "GPUs", "loaded", "installed", "module", "channel", "kernel", ""):
        drawn.add_column(heading, no_wrap=heading != "GPUs")
    notes = []
    for state in states:
        findings = [*state.findings, *([f"drained: {state.drained}"] if state.drained else [])]
        notes += [f"{state.host}: {finding}" for finding in findings]
        names = ", ".join(sorted({gpu.name.removeprefix("NVIDIA ") for gpu in state.gpus}))
        drawn.add_row(
            state.host,
            f"{len(state.gpus)} of {state.devices} {names}".rstrip(),
            state.loaded or "-",
            state.installed_next or "-",
            state.flavour or "-",
            state.channel or "-",
            state.kernel or "-",
            Text("ill", style="red") if findings else Text("well", style="green"),
        )
    console.print(drawn)
    for note in notes:
        console.print(f"! {note}", style="red", markup=False, soft_wrap=True)


def show_plan(console: Console, moves: list[HostMove]) -> None:
    """Each host's steps, the packages, and what to know before saying yes."""
    for move in moves:
        console.print(f"\n{move.host}", style="bold")
        for number, step in enumerate(move.steps(), 1):
            console.print(f"  {number}. {step}", markup=False)
        for name, version in move.install.items():
            console.print(f"     + {name} {version}", style="dim", markup=False)
        for name in move.remove:
            console.print(f"     - {name}", style="dim", markup=False)
        for warning in move.warnings():
            console.print(f"  ! {warning}", style="yellow", markup=False)
