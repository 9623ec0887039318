"""`ops restart`: engines, the app, GPUs and hosts, a few at a time, without a failed request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.carry_out import carry_out, carry_out_through_reboots
from ops.cli.options import (
    Drain,
    DryRun,
    Inventory,
    JsonEvents,
    Limit,
    Most,
    Ready,
    Start,
    Wait,
    Why,
    Yes,
    parse_limit,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.fleet.model import Fleet
    from ops.models.state import ModelOnHost

app = typer.Typer(
    help="Restart engines, the app, GPUs or hosts, a few at a time, without a failed request.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(metavar="[MODEL]", help="Default: every model.")]
Strategy = Annotated[str, typer.Option(help="auto, blue-green or in-place.")]


@app.command()
def engine(
    inventory: Inventory,
    name: Name = "",
    strategy: Strategy = "auto",
    max_unavailable: Most = 1,
    drain_timeout: Drain = 330,
    ready_timeout: Ready = 1800,
    limit: Limit = "",
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Restart the engines of a model, or of all.

    Where two fit, another engine starts in the other slot and takes the requests
    over; elsewhere the host refuses new requests until its engine makes a token,
    so that the app goes to another host or holds them on.

    Example: ops restart engine -i inventories/example assistant --dry-run
    """
    from ops.fleet import load
    from ops.restarts import engine_plan

    fleet = load(inventory)
    choices = engine_plan.Choices(
        strategy=strategy,
        max_unavailable=max_unavailable,
        drain_seconds=drain_timeout,
        ready_seconds=ready_timeout,
        why=why,
    )
    plan = engine_plan.plan_restart(_states(fleet, name, limit), choices, partial=bool(limit))
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command("app")
def app_(
    inventory: Inventory,
    max_unavailable: Most = 1,
    drain_timeout: Drain = 330,
    ready_timeout: Start = 120,
    limit: Limit = "",
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Restart the app's instances: each out of the edge first, and back when it is ready.

    Example: ops restart app -i inventories/example --dry-run
    """
    from ops.app import plan as app_plan
    from ops.app.state import instances
    from ops.fleet import load

    fleet = load(inventory)
    choices = app_plan.Choices(
        max_unavailable=max_unavailable,
        drain_seconds=drain_timeout,
        ready_seconds=ready_timeout,
        why=why,
    )
    found = instances(fleet, parse_limit(limit))
    plan = app_plan.plan_restart(found, choices, total=len(instances(fleet)))
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command()
def host(
    inventory: Inventory,
    names: Annotated[list[str], typer.Argument(metavar="HOST…", help="Hosts, or groups of them.")],
    max_unavailable: Most = 1,
    drain_timeout: Drain = 330,
    reboot_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that a host may take to boot.")
    ] = 900,
    ready_timeout: Ready = 1800,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Reboot hosts: out of traffic, boot, proof of units and engines, back.

    Example: ops restart host -i inventories/fleet gpu --dry-run
    """
    from ops.fleet import load
    from ops.restarts import host_plan

    fleet = load(inventory)
    choices = host_plan.Choices(
        max_unavailable=max_unavailable,
        drain_seconds=drain_timeout,
        reboot_seconds=reboot_timeout,
        ready_seconds=ready_timeout,
        why=why,
    )
    plan = host_plan.plan_restart(fleet, host_plan.pick(fleet, names), choices)
    carry_out_through_reboots(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command()
def gpu(
    inventory: Inventory,
    name: Annotated[str, typer.Argument(metavar="HOST", help="A host of group gpu.")],
    index: Annotated[
        int | None, typer.Option("--gpu", min=0, help="NVML's index. Default: all of them.")
    ] = None,
    drain_timeout: Drain = 330,
    reset_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that the driver may take to reset.")
    ] = 120,
    ready_timeout: Ready = 1800,
    cut: Annotated[
        bool, typer.Option("--cut", help="Cut requests that have not ended by then.")
    ] = False,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Reset a host's GPUs: engines out of traffic and stopped, reset, proof, back.

    What only watches the GPUs, the exporter among it, is stopped too: a GPU that
    anybody has open cannot be reset. Hosts with NVSwitch reset all GPUs together.

    Example: ops restart gpu -i inventories/fleet gpu1 --gpu 0 --dry-run
    """
    from ops.fleet import load
    from ops.restarts import gpu_plan

    fleet = load(inventory)
    choices = gpu_plan.Choices(
        drain_seconds=drain_timeout,
        reset_seconds=reset_timeout,
        ready_seconds=ready_timeout,
        cut=cut,
        why=why,
    )
    plan = gpu_plan.plan_reset(fleet, fleet.host(name), index, choices)
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command("all")
def all_(
    inventory: Inventory,
    max_unavailable: Most = 1,
    drain_timeout: Drain = 330,
    ready_timeout: Ready = 1800,
    limit: Limit = "",
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Restart every engine and then every instance of the app; no host reboots.

    Example: ops restart all -i inventories/example --dry-run
    """
    from ops.app import plan as app_plan
    from ops.app.state import instances
    from ops.fleet import load
    from ops.restarts import engine_plan
    from ops.restarts.both import joined

    fleet = load(inventory)
    engines = engine_plan.Choices(
        max_unavailable=max_unavailable, drain_seconds=drain_timeout, ready_seconds=ready_timeout
    )
    plans = [engine_plan.plan_restart(_states(fleet, "", limit), engines, partial=bool(limit))]
    chosen = parse_limit(limit)
    if not chosen or any(one.host in chosen for one in instances(fleet)):
        found, total = instances(fleet, chosen), len(instances(fleet))
        choices = app_plan.Choices(max_unavailable=max_unavailable, drain_seconds=drain_timeout)
        plans.append(app_plan.plan_restart(found, choices, total=total))
    carry_out(fleet, joined("restart all", plans, why), wait,
              yes=yes, dry_run=dry_run, as_json=as_json)  # fmt: skip


def _states(fleet: Fleet, name: str, limit: str) -> dict[str, Sequence[ModelOnHost]]:
    """What the hosts say of a model, or of every one."""
    from ops.models.state import survey

    chosen = parse_limit(limit)
    hosts = [host for host in fleet.group("gpu") if not chosen or host.name in chosen]
    names = [name] if name else [model.name for host in hosts for model in host.models]
    return {name: survey(fleet, name, chosen) for name in dict.fromkeys(names)}
