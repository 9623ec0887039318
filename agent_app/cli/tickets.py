"""`agent-app tickets`."""

import json
from typing import Annotated

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config

app = typer.Typer(help="Tickets that the agent opened.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Tickets that the agent opened."""


@app.command("list")
def list_of_tickets(
    limit: Annotated[int, typer.Option(help="Most to show.", min=1)] = 50,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """List tickets, newest first."""
    from agent_app.state.tickets import list_tickets

    with open_database(load_config(config)) as connection:
        found = list_tickets(connection, limit=limit)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for ticket in found:
        typer.echo("{id}  {priority}  {created_at}  webhook {webhook}  {title}".format(**ticket))
