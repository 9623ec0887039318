"""`agent-app usage`."""

import json
from typing import Annotated

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config

app = typer.Typer()


@app.command()
def usage(
    month: Annotated[str | None, typer.Option(help="Such as 2026-11; default: this one.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key's.")] = None,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Show what keys used, by day, model and feature."""
    from agent_app.access.key_admin import list_usage
    from agent_app.state.usage import first_of_month

    first = first_of_month(month)
    with open_database(load_config(config)) as connection:
        rows = list_usage(connection, first, key)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    columns = ("key", "day", "model", "feature", "requests", "prompt_tokens",
               "completion_tokens", "engine_seconds")  # fmt: skip
    table = [columns, *(tuple(str(row[column] or "-") for column in columns) for row in rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(columns))]
    for line in table:
        typer.echo("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip())
