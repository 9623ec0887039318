"""`ops backup` and `ops restore`: the fleet's backups, their proof, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.carry_out import carry_out
from ops.cli.options import DryRun, Inventory, Json, JsonEvents, Start, Wait, Why, Yes
from ops.cli.output import print_json, print_table, tell

if TYPE_CHECKING:
    from ops.backup.survey import Survey
    from ops.operations.journal import Operation

app = typer.Typer(
    help="Back up the fleet, list and prove its backups.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
restore_app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
COLUMNS = {
    "label": "backup", "kind": "kind", "ended": "ended (UTC)", "cluster": "cluster",
    "stored": "stored",
}  # fmt: skip
FILE_COLUMNS = {"host": "files of", "count": "backups", "last": "last", "paths": "what"}


@app.command("run")
def run_(
    inventory: Inventory,
    full: Annotated[
        bool, typer.Option("--full", help="Full, whatever the last one's age.")
    ] = False,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Back up PostgreSQL, files that no database has, and this inventory with its secrets.

    Example: ops backup run -i inventories/example --full --yes
    """
    from ops.backup.plan import plan_backup
    from ops.backup.survey import hosts_with_files, survey
    from ops.fleet import load

    fleet = load(inventory)
    found = survey(fleet)
    plan = plan_backup(found, hosts_with_files(fleet, found), full=full, why=why)
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command("list")
def list_(inventory: Inventory, as_json: Json = False) -> None:
    """List backups, and the window of moments that can be restored.

    Example: ops backup list -i inventories/example
    """
    from ops.backup.listing import stated
    from ops.backup.plan import unprotected, where
    from ops.backup.survey import snapshots, survey
    from ops.fleet import load

    fleet = load(inventory)
    found = survey(fleet)
    files = snapshots(fleet)
    backups = found.listing.backups
    if as_json:
        window = [backups[0].ended.isoformat(), found.now.isoformat()] if backups else []
        print_json({
            "repository": where(found), "ours": found.ours, "window": window,
            "archived": found.listing.archived,
            "backups": [one.as_record() for one in backups], "files": files,
        })  # fmt: skip
        return
    print_table(rows(found), COLUMNS, right=frozenset({"cluster", "stored"}))
    if files:
        print_table(file_rows(files), FILE_COLUMNS, right=frozenset({"count"}))
    if backups:
        tell(
            f"any moment from {stated(backups[0].ended)} on can be restored: ops restore --to TIME"
        )
    if not all(map(found.listing.leads_to_now, backups)):
        tell("*: of a restored cluster that is no longer; only --backup LABEL brings it back")
    if not found.ours:
        tell("these are of another cluster than the one that serves: ops restore brings it back")
    for warning in unprotected(found):
        tell(f"note: {warning}")


@app.command()
def verify(inventory: Inventory, as_json: Json = False) -> None:
    """Restore the newest backup beside the database, read every row of it, take it away.

    The same runs by itself, weekly. Exit code 1 where it fails.

    Example: ops backup verify -i inventories/example
    """
    from rich.console import Console

    from ops.backup.proof import prove
    from ops.backup.survey import survey
    from ops.fleet import load

    fleet = load(inventory)
    found = survey(fleet)
    with Console(stderr=True).status("restoring the newest backup beside the database …"):
        proofs = prove(fleet, found)
    if as_json:
        print_json({"hosts": [proof.as_record() for proof in proofs]})
    else:
        for proof in proofs:
            typer.echo(f"{proof.host}: {'good' if proof.good else 'FAILED'}: {proof.said}")
    if not all(proof.good for proof in proofs):
        raise typer.Exit(1)


@restore_app.command()
def restore(
    inventory: Inventory,
    to: Annotated[
        str, typer.Option(help="A moment: ISO 8601; without a zone it is this machine's.")
    ] = "",
    backup: Annotated[
        str, typer.Option(help="A backup's label, as it was when it ended; or latest.")
    ] = "latest",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Over the cluster of now, which is gone then.")
    ] = False,
    ready_timeout: Start = 120,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Bring the database back: to the last that is there, a moment, or a backup.

    The app stops meanwhile. The cluster of now is kept beside the new one; a
    failure brings it back. On a fresh data host run site.yml first.

    Example: ops restore -i inventories/example --to '2026-03-01 14:05' --dry-run
    """
    from ops.backup.moment import parse_moment
    from ops.backup.plan import Choices, Target, plan_restore
    from ops.backup.survey import survey
    from ops.fleet import load

    target = Target.of(parse_moment(to) if to else None, backup)
    fleet = load(inventory)
    choices = Choices(in_place=in_place, ready_seconds=ready_timeout, why=why)
    plan = plan_restore(fleet, survey(fleet), target, choices)
    operation = carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)
    if operation is not None:
        _tell_end(operation, as_json)


def _tell_end(operation: Operation, as_json: bool) -> None:
    """The recovery point and the time taken; where the old cluster is."""
    import json
    import time

    from ops.backup.steps import statement

    number = next(n for n, s in enumerate(operation.plan.steps) if s.kind == "backup.restore")
    detail = operation.detail(number)
    if as_json:
        typer.echo(json.dumps({"at": time.time(), "event": "restored", **detail}))
        return
    typer.echo(statement(detail))
    if str(detail["aside"]).startswith("/"):
        typer.echo(f"the cluster of before is at {detail['aside']}: remove it when you are sure")


def rows(found: Survey) -> list[dict[str, Any]]:
    """Backups as a table's rows."""
    from ops.backup.plan import size

    return [
        {
            "label": one.label, "ended": f"{one.ended:%Y-%m-%d %H:%M}",
            "cluster": size(one.cluster_bytes), "stored": size(one.stored_bytes),
            "kind": one.kind + ("" if found.listing.leads_to_now(one) else "*"),
        }
        for one in found.listing.backups
    ]  # fmt: skip


def file_rows(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Backups of files as a table's rows: one per host."""
    from ops.cli.output import minute

    found: dict[str, dict[str, Any]] = {}
    for one in files:
        row = found.setdefault(one["host"], {"host": one["host"], "count": 0})
        row |= {"count": row["count"] + 1, "last": minute(one["time"]),
                "paths": " ".join(one["paths"])}  # fmt: skip
    return list(found.values())
