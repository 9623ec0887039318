"""`ops app`: the agent app's releases, moved without a failed request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.carry_out import carry_out
from ops.cli.options import Drain, DryRun, Inventory, JsonEvents, Most, Start, Wait, Why, Yes

if TYPE_CHECKING:
    from ops.app.plan import Choices

app = typer.Typer(
    help="The agent app: deploy a release and take it back without a failed request.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Canary = Annotated[str, typer.Option(help="The host whose first instance goes first.")]
ErrorShare = Annotated[
    float, typer.Option(min=0, max=1, help="Allowed of the first one's, beyond the others'.")
]


@app.command()
def deploy(
    inventory: Inventory,
    version_from: Annotated[
        Path | None, typer.Option(help="Checkout whose agent_app is deployed; default: this one.")
    ] = None,
    canary: Canary = "",
    stage_seconds: Annotated[float, typer.Option(min=0, help="To watch the first one.")] = 20,
    max_error_share: ErrorShare = 0.01,
    max_unavailable: Most = 1,
    drain_timeout: Drain = 330,
    ready_timeout: Start = 120,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Move the app to a checkout's release, instance by instance.

    The release is built beside the one that runs and the database takes its
    additions; then each instance leaves the edge, starts anew, has to complete a
    request and comes back. The first one is watched; any failure brings the old
    release back.

    Example: ops app deploy -i inventories/example --dry-run
    """
    from ops.app import plan as app_plan
    from ops.app.release import release_of, source_of
    from ops.app.state import instances, survey
    from ops.fleet import load
    from ops.places import ROOT

    fleet = load(inventory)
    source = source_of((version_from or ROOT).resolve())
    choices = _choices(
        max_unavailable, stage_seconds, max_error_share, drain_timeout, ready_timeout, canary, why
    )
    found = instances(fleet)
    plan = app_plan.plan_deploy(
        found, survey(fleet, found), release_of(source), str(source), choices
    )
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command()
def rollback(
    inventory: Inventory,
    to: Annotated[str, typer.Option("--to", help="Release; default: the one before.")] = "",
    canary: Canary = "",
    stage_seconds: Annotated[float, typer.Option(min=0, help="To watch the first one.")] = 0,
    max_error_share: ErrorShare = 0.01,
    max_unavailable: Most = 1,
    drain_timeout: Drain = 330,
    ready_timeout: Start = 120,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Bring back the release of before, which still lies on the hosts.

    The database keeps what the newer release added to it.

    Example: ops app rollback -i inventories/example --dry-run
    """
    from ops.app import plan as app_plan
    from ops.app.state import instances, survey
    from ops.fleet import load

    fleet = load(inventory)
    choices = _choices(
        max_unavailable, stage_seconds, max_error_share, drain_timeout, ready_timeout, canary, why
    )
    found = instances(fleet)
    plan = app_plan.plan_rollback(found, survey(fleet, found), to, choices)
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


def _choices(
    max_unavailable: int,
    stage_seconds: float,
    max_error_share: float,
    drain_seconds: float,
    ready_seconds: float,
    canary: str,
    why: str,
) -> Choices:
    from ops.app.plan import Choices

    return Choices(
        max_unavailable=max_unavailable,
        stage_seconds=stage_seconds,
        max_error_share=max_error_share,
        drain_seconds=drain_seconds,
        ready_seconds=ready_seconds,
        canary=canary,
        why=why,
    )
