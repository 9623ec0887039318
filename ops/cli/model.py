"""`ops model`: the fleet's models, moved without a failed request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cli.carry_out import carry_out
from ops.cli.options import (
    Drain,
    DryRun,
    Inventory,
    JsonEvents,
    Limit,
    Ready,
    Wait,
    Why,
    Yes,
    parse_limit,
)

app = typer.Typer(
    help="The fleet's models: stage, upgrade and roll back without a failed request.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXAMPLE = "--set max_model_len=4096"
Name = Annotated[str, typer.Argument(metavar="MODEL", help="As the inventory names it.")]
To = Annotated[str, typer.Option("--to", help="Revision; default: what the inventory says.")]
Source = Annotated[
    str, typer.Option(help="hf://, file://, host://, or peer: another host of the fleet.")
]
Spread = Annotated[
    bool, typer.Option("--spread/--no-spread", help="Fetch once, then from host to host.")
]
Vllm = Annotated[str, typer.Option(help="Version of vLLM to serve it with.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE of the model's entry, in YAML.")
]
Strategy = Annotated[str, typer.Option(help="auto, blue-green or swap.")]
Shift = Annotated[str, typer.Option(help="Shares of the first host's requests, in per cent.")]
Stage = Annotated[float, typer.Option(min=0, help="Seconds to watch each share.")]
Keep = Annotated[float, typer.Option(min=0, help="Minutes that the old engine stays ready.")]


@app.command()
def stage(
    inventory: Inventory,
    name: Name,
    to: To = "",
    source: Source = "",
    vllm: Vllm = "",
    changes: Set = None,
    spread: Spread = True,
    limit: Limit = "",
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Bring a revision's weights and environment onto every host of a model; nothing else changes.

    One host fetches from the source, the others get it from a host that has it, over the
    fleet's private network. Room is looked at on every host first; what was interrupted goes
    on with the same command. An upgrade then finds all of it there.

    Example: ops model stage -i inventories/example assistant --to 9f1c2e7 --dry-run
    """
    from ops.fleet import load
    from ops.weights.look import look, serving
    from ops.weights.plan import PEER, plan_stage

    fleet = load(inventory)
    entry = read_wanted(inventory, name, to, source, vllm, changes)
    targets = serving(fleet, name, parse_limit(limit))
    wanted, shelves = look(fleet, name, entry, targets, peers_only=source == PEER, spread=spread)
    plan = plan_stage(wanted, shelves, [host.name for host in targets], why=why)
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command()
def prune(
    inventory: Inventory,
    name: Annotated[str, typer.Argument(metavar="[MODEL]", help="Default: all of them.")] = "",
    keep: Annotated[
        int | None,
        typer.Option(min=0, help="Unused ones to keep; default: engine_keep_revisions."),
    ] = None,
    limit: Limit = "",
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Remove old revisions' weights, and environments of vLLM that nobody uses, from every host.

    What serves, what a rollback needs, what the inventory wants, what an unfinished operation
    names and what is being staged stays, and of the others the newest --keep.

    Example: ops model prune -i inventories/example assistant --keep 1 --dry-run
    """
    from ops.fleet import load
    from ops.weights.look import keeps, named, serving
    from ops.weights.prune import plan_prune
    from ops.weights.shelf import survey

    fleet, wanted = load(inventory), parse_limit(limit)
    hosts = serving(fleet, name, wanted) if name else list(fleet.group("gpu"))
    hosts = [host for host in hosts if not wanted or host.name in wanted]
    shelves = survey(fleet, hosts, sizes=not name)
    kept = {host.name: keeps(host) if keep is None else keep for host in hosts}
    plan = plan_prune(shelves, kept, named(fleet), only=name, why=why)
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command()
def upgrade(
    inventory: Inventory,
    name: Name,
    to: To = "",
    source: Source = "",
    vllm: Vllm = "",
    changes: Set = None,
    suite: Annotated[str, typer.Option("--eval", help="Suite that the new engine must pass.")] = "",
    strategy: Strategy = "auto",
    canary: Annotated[str, typer.Option(help="The host that goes first.")] = "",
    spread: Spread = True,
    shift: Shift = "1,10,50,100",
    stage_seconds: Stage = 20,
    keep_minutes: Keep = 30,
    drain_timeout: Drain = 330,
    ready_timeout: Ready = 1800,
    max_error_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the new engine's.")
    ] = 0.01,
    max_slowdown: Annotated[float, typer.Option(min=1, help="Of the first byte, at p95.")] = 3.0,
    limit: Limit = "",
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Move a model to another revision, other flags or another vLLM.

    Weights are staged while the old engine serves; a new one starts beside it
    where both fit, answers, and gets a growing share of the requests under an
    error and latency budget. Any failure brings the old state back. Without --to, --set
    or --vllm it moves the fleet to what the inventory says.

    Example: ops model upgrade -i inventories/example assistant --to 9f1c2e7 --dry-run
    """
    from ops.app.state import following
    from ops.evals.suite import load as load_suite
    from ops.fleet import load
    from ops.models import upgrade as planning
    from ops.models.state import survey
    from ops.weights.look import steps_before
    from ops.weights.plan import PEER

    fleet = load(inventory)
    wanted = read_wanted(inventory, name, to, source, vllm, changes)
    choices = planning.Choices(
        strategy=strategy,
        ladder=parse_ladder(shift),
        stage_seconds=stage_seconds,
        keep_seconds=keep_minutes * planning.MINUTE,
        canary=canary,
        suite=load_suite(suite).model_dump(mode="json") if suite else {},
        drain_seconds=drain_timeout,
        ready_seconds=ready_timeout,
        max_error_share=max_error_share,
        max_slowdown=max_slowdown,
        why=why,
    )
    states = survey(fleet, name, parse_limit(limit))
    moving = planning.ordered([s for s in states if planning.differs(s.entry, wanted)], canary)
    before = steps_before(
        fleet, name, wanted, [state.host for state in moving],
        peers_only=source == PEER, spread=spread,
    )  # fmt: skip
    plan = planning.plan_upgrade(
        name,
        states,
        wanted,
        choices,
        partial=bool(limit),
        before=before,
        app=following(fleet),
    )
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command()
def rollback(
    inventory: Inventory,
    name: Name,
    strategy: Strategy = "auto",
    keep_minutes: Keep = 30,
    stage_seconds: Stage = 0,
    drain_timeout: Drain = 330,
    ready_timeout: Ready = 1800,
    limit: Limit = "",
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Bring back what each host served before, in seconds while its engine is still kept.

    Example: ops model rollback -i inventories/example assistant --dry-run
    """
    from ops.app.state import following
    from ops.fleet import load
    from ops.models import upgrade as planning
    from ops.models.state import survey

    fleet = load(inventory)
    choices = planning.Choices(
        strategy=strategy,
        stage_seconds=stage_seconds,
        keep_seconds=keep_minutes * planning.MINUTE,
        drain_seconds=drain_timeout,
        ready_seconds=ready_timeout,
        why=why,
    )
    states = survey(fleet, name, parse_limit(limit))
    plan = planning.plan_rollback(
        name,
        states,
        choices,
        partial=bool(limit),
        app=following(fleet),
    )
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


def read_wanted(
    inventory: Path, name: str, to: str, source: str, vllm: str, changes: list[str] | None
) -> dict[str, Any]:
    """Return the inventory's entry of a model, with what the options change."""
    from ops.models.inventory import wanted_entry
    from ops.weights.plan import PEER

    source = "" if source == PEER else source
    wanted = wanted_entry(inventory, name)
    wanted |= {k: v for k, v in (("revision", to), ("source", source), ("vllm", vllm)) if v}
    return wanted | parse_changes(changes or [])


def parse_changes(changes: list[str]) -> dict[str, Any]:
    """Read `KEY=VALUE`, the value in YAML.

    Raises:
        InputError: One is not so, or names what has an option of its own.
    """
    import yaml

    from ops.errors import InputError

    found: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(
                f"--set {change}: not YAML", cure="--set max_model_len=4096"
            ) from error
        if not equals or not key.isidentifier() or key == "name":
            raise InputError(f"--set {change}: no KEY=VALUE", cure=EXAMPLE)
        found[key] = value
    return found


def parse_ladder(text: str) -> tuple[int, ...]:
    """Read `1,10,50,100`.

    Raises:
        InputError: It is something else.
    """
    from ops.errors import InputError

    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"--shift {text}: no shares", cure="--shift 1,10,50,100") from error
