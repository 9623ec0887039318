"""`ops driver`: the fleet's GPU drivers, moved host by host without losing a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.carry_out import carry_out_through_reboots
from ops.cli.options import (
    Drain,
    DryRun,
    Inventory,
    Json,
    JsonEvents,
    Limit,
    Ready,
    Wait,
    Why,
    Yes,
    parse_limit,
)
from ops.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from ops.driver.plan import Choices, HostMove
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
    drain_timeout: Drain = 300,
    ready_timeout: Ready = 900,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Move hosts to a branch or version, one after the other.

    Each host is drained, moved in one apt transaction, rebooted if the loaded
    module is not the installed one, proven, and let in again. The first failure
    brings every host back to the driver that it had.

    Example: ops driver upgrade -i inventories/example --to 595
    """
    from ops.driver.plan import Choices, Target
    from ops.fleet import load

    target = Target.parse(to)
    fleet = load(inventory)
    wanted = target.variables()
    moves = _moves(fleet, chosen(fleet, limit), lambda _state: wanted)
    lasting = None if limit else _lasting(target.branch, target.version)
    choices = Choices(drain_timeout, ready_timeout, why)
    _run(fleet, "driver upgrade", moves, lasting, choices, wait,
         yes=yes, dry_run=dry_run, as_json=as_json)  # fmt: skip


@app.command()
def rollback(
    inventory: Inventory,
    limit: Limit = "",
    drain_timeout: Drain = 300,
    ready_timeout: Ready = 900,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Bring back the exact packages that each host had before.

    Example: ops driver rollback -i inventories/example --limit gpu1
    """
    from ops.driver.plan import Choices, previous_variables
    from ops.fleet import load

    fleet = load(inventory)
    moves = _moves(fleet, chosen(fleet, limit), previous_variables)
    targets = {(m.variables["nvidia_driver_branch"], m.to) for m in moves}
    lasting = None if limit or len(targets) != 1 else _lasting(*targets.pop())
    choices = Choices(drain_timeout, ready_timeout, why)
    _run(fleet, "driver rollback", moves, lasting, choices, wait,
         yes=yes, dry_run=dry_run, as_json=as_json)  # fmt: skip


def _lasting(branch: str, version: str) -> dict[str, str]:
    """What the inventory is to want."""
    return {"nvidia_driver_branch": branch, "nvidia_driver_version": version}


def _moves(
    fleet: Fleet, hosts: tuple[Host, ...], wanted: Callable[[DriverState], Mapping[str, Any]]
) -> list[HostMove]:
    """What happens on each host; asking apt takes a while."""
    from rich.console import Console

    from ops.driver.check import survey_moves

    with Console(stderr=True).status("asking the hosts what apt would do …"):
        return survey_moves(fleet, hosts, wanted)


def _run(
    fleet: Fleet,
    verb: str,
    moves: list[HostMove],
    lasting: Mapping[str, Any] | None,
    choices: Choices,
    wait: float,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show the moves, ask, do."""
    from rich.console import Console

    from ops.driver.plan import plan_operation
    from ops.fleet.desired import defined_variables

    if lasting is not None:
        defined_variables(fleet.inventory, "gpu", lasting)  # refuses now, not after the last host
    planned = plan_operation(fleet, verb, moves, lasting, choices)
    if dry_run and as_json:
        print_json({"moves": [move.as_record() for move in moves], "plan": planned.as_record()})
        return
    if not as_json:
        show_moves(Console(highlight=False), moves)
    if planned.steps:
        carry_out_through_reboots(fleet, planned, wait, yes=yes, dry_run=dry_run, as_json=as_json)


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


def show_moves(console: Console, moves: list[HostMove]) -> None:
    """Each host's packages; the steps and what to know before saying yes are the plan's."""
    for move in moves:
        count = len(move.install) + len(move.remove)
        told = f"{move.installed or 'no driver'} to {move.to}, {count} packages"
        console.print(f"{move.host}: {told if move.needed else 'has this driver, loaded'}")
        for name, version in move.install.items():
            console.print(f"  + {name} {version}", style="dim", markup=False)
        for name in move.remove:
            console.print(f"  - {name}", style="dim", markup=False)
