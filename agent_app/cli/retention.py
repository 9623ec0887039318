"""`agent-app retention`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config

app = typer.Typer(help="Delete what is old enough.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Delete what is old enough."""


@app.command("run")
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Delete what is older than `retention` in the configuration; a timer runs this daily."""
    from agent_app.state.retention import run_retention

    settings = load_config(config)
    with open_database(settings) as connection:
        report = run_retention(connection, settings.retention, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, **asdict(report)}))
    elif report.busy:
        typer.echo("another retention run is under way; this one did nothing")
    else:
        for store, count in report.deleted.items():
            typer.echo(f"{store}: {count} {'would go' if dry_run else 'gone'}")
        for store, why in report.failed.items():
            typer.echo(f"{store}: failed: {why}", err=True)
        for table in report.vacuum:
            typer.echo(f"{table} has many dead rows: VACUUM {table} as its owner")
    raise typer.Exit(1 if report.failed else 0)
