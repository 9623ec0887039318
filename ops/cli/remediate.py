"""`ops remediate`: what remediation does, did and would do; its kill switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.carry_out import carry_out
from ops.cli.options import Drain, DryRun, Inventory, Json, JsonEvents, Ready, Wait, Why, Yes
from ops.cli.output import minute, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

app = typer.Typer(
    help="Remediation: what it does, did and would do; its kill switch.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DECISION = {"alert": "alert", "verdict": "verdict", "action": "action", "reason": "why"}
RECORD = {"when": "when", "alert": "alert", "action": "action", "result": "result",
          "seconds": "s", "operation": "operation", "why": "why"}  # fmt: skip
NUMBERS = frozenset({"seconds"})
HANDS = frozenset({"stuck", "abandoned", "failed"})
"""Ends after which a person has to look."""


@app.command()
def status(inventory: Inventory, as_json: Json = False) -> None:
    """Show mode, kill switch, service, rules, and the last action.

    Exit status 0: it is as the inventory wants it; 1: the service does not run,
    is paused, or its last action waits for a person.

    Example: ops remediate status -i inventories/fleet
    """
    from ops.fleet import load
    from ops.remedy import host
    from ops.remedy.policy import Mode, read_policy

    fleet = load(inventory)
    policy = read_policy(host.home(fleet).variables.get("remediation"), str(inventory))
    if policy.mode == Mode.OFF:
        if as_json:
            print_json({"mode": policy.mode, "well": True})
        else:
            typer.echo("off: the inventory has no remediation, or mode: off")
        return
    told, unit = host.ask(fleet, "show"), host.unit_state(fleet)
    acts = [record for record in told["records"] if record["verdict"] == "act"]
    last = acts[-1] if acts else None
    waits = last is not None and last["outcome"] in HANDS
    well = unit == "active" and not told["paused"] and not waits and told["mode"] == policy.mode
    if as_json:
        shown = {key: told[key] for key in ("mode", "paused", "open", "rules")}
        print_json({**shown, "wanted": policy.mode, "unit": unit, "last": last, "well": well})
        raise typer.Exit(0 if well else 1)
    head = f"{told['mode']}, service {unit}"
    if told["mode"] != policy.mode:
        head += f"; the inventory says {policy.mode}: ops provision --tags watch"
    typer.echo(head)
    if told["paused"]:
        typer.echo(f"paused: {told['paused']}\n  go on: ops remediate resume")
    for name in told["open"]:
        typer.echo(f"at work: {name}")
    if last:
        typer.echo(f"last action: {last['action']} for {last['alert']}: {last['outcome']}")
        if waits:
            typer.echo(f"  {last['why']}")
    print_table(_rules(told["rules"]), {"alert": "alert", "match": "labels", "action": "action",
                                        "only": "only on"}, right=frozenset())  # fmt: skip
    raise typer.Exit(0 if well else 1)


@app.command()
def history(
    inventory: Inventory,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    acted: Annotated[bool, typer.Option("--acted", help="Only what was done.")] = False,
    as_json: Json = False,
) -> None:
    """List what was decided, and what came of it, newest first.

    Example: ops remediate history --acted
    """
    records = [
        record
        for record in reversed(_ask(inventory, "show")["records"])
        if record["verdict"] == "act" or not acted
    ][:limit]
    if as_json:
        print_json({"records": records})
        return
    shown = [
        {
            **record,
            "when": minute(record["at"]),
            "result": record["outcome"] or record["verdict"],
            "why": record["why"] or record["reason"],
        }
        for record in records
    ]
    print_table(shown, RECORD, right=NUMBERS)


@app.command()
def explain(
    inventory: Inventory,
    alert: Annotated[str, typer.Argument(help="A rule's name, such as GpuFellOff.")],
    host: Annotated[str, typer.Option("--host", "-H", help="As the inventory names it.")],
    label: Annotated[
        list[str] | None, typer.Option("--label", help="A further label, name=value.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what would be done now if an alert fired on a host; does nothing.

    By the policy, the records and the fleet as they are on the remediator's host.
    Exit status 0: something would be done; 1: nothing, and why.

    Example: ops remediate explain GpuXidReset --host gpu1 --label gpu=0 --label xid=48
    """
    from ops.errors import InputError

    for pair in label or []:
        if "=" not in pair:
            raise InputError(f"{pair!r} is no label", cure="--label xid=48")
    found = _ask(inventory, "explain", alert, host, *(label or []))["decisions"]
    _tell(found, as_json)
    raise typer.Exit(0 if found[0]["verdict"] in ("act", "dry_run") else 1)


@app.command()
def run(
    inventory: Inventory,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Needed: acting is the service's own matter.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what would be done about each alert that fires now; does nothing.

    Example: ops remediate run --dry-run
    """
    from ops.errors import InputError

    if not dry_run:
        raise InputError(
            "only the service acts, one alert after the other",
            cure="add --dry-run; to act by hand: ops restart engine, gpu or host",
        )
    _tell(_ask(inventory, "active")["decisions"], as_json)


@app.command()
def pause(
    inventory: Inventory,
    why: Annotated[str, typer.Option(help="For whoever finds it paused.")] = "",
) -> None:
    """Pull the kill switch: no action is begun until `ops remediate resume`.

    An operation under way goes on; take that back with `ops abort`.

    Example: ops remediate pause --why "moving racks"
    """
    import getpass
    import socket

    from ops.fleet import load
    from ops.remedy import host

    words = f"{getpass.getuser()}@{socket.gethostname()}" + (f": {why}" if why else "")
    fleet = load(inventory)
    host.ask(fleet, "show")  # or says that there is nothing to pause
    host.pause(fleet, words)
    typer.echo(f"paused: {words}")


@app.command()
def resume(inventory: Inventory) -> None:
    """Let remediation act again.

    Example: ops remediate resume
    """
    from ops.fleet import load
    from ops.remedy import host

    fleet = load(inventory)
    was = host.ask(fleet, "show")["paused"]
    host.let_go_on(fleet)
    typer.echo(f"goes on; it was paused by {was}" if was else "it was not paused")


@app.command("let-in")
def let_in(
    inventory: Inventory,
    name: Annotated[str, typer.Argument(metavar="HOST", help="A host that was drained.")],
    drain_timeout: Drain = 330,
    ready_timeout: Ready = 1800,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Put a host that remediation drained back into traffic, once it has proven itself.

    Example: ops remediate let-in gpu1 --dry-run
    """
    from ops.fleet import load
    from ops.restarts.host_plan import Choices, plan_let_in

    fleet = load(inventory)
    choices = Choices(drain_seconds=drain_timeout, ready_seconds=ready_timeout, why=why)
    plan = plan_let_in(fleet.host(name), choices)
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


def _ask(inventory: Any, *words: str) -> dict[str, Any]:
    from ops.fleet import load
    from ops.remedy import host

    return host.ask(load(inventory), *words)


def _tell(decisions: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"decisions": decisions})
    elif decisions:
        print_table(decisions, DECISION, right=frozenset())
    else:
        typer.echo("no alert fires")


def _rules(table: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[dict[str, str]]:
    return [
        {
            "alert": name,
            "match": " ".join(f"{key}={value}" for key, value in rule["match"].items()),
            "action": rule["action"],
            "only": ", ".join(rule["only"]),
        }
        for name, rules in table.items()
        for rule in rules
    ]
