"""`agent-app webhooks`."""

import json
from typing import Annotated
from uuid import UUID

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config, read_secret

app = typer.Typer(help="Webhooks of tickets and jobs.", no_args_is_help=True)


@app.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(help="Only these: pending, delivered, given up.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most to show.", min=1)] = 50,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """List deliveries, newest first, and how they fare."""
    from agent_app.state.webhooks import list_webhooks

    with open_database(load_config(config)) as connection:
        found = list_webhooks(connection, state=state, limit=limit)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for hook in found:
        tries = f"{hook['attempts']} attempts"
        why = f"  {hook['last_error']}" if hook["last_error"] else ""
        url = hook["url"] or "tools.tickets.webhook_url"
        typer.echo(f"{hook['id']}  {hook['state']:<9}  {hook['kind']}  {tries}  {url}{why}")


@app.command("retry")
def retry(webhook_id: UUID, as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Post one again now, given up or not, with all its attempts before it."""
    from agent_app.state.webhooks import retry_webhook

    with open_database(load_config(config)) as connection:
        retry_webhook(connection, webhook_id)
    typer.echo(json.dumps({"id": str(webhook_id), "state": "pending"}) if as_json
               else f"{webhook_id} is due now")  # fmt: skip


@app.command("secret")
def secret(name: str, as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print what signs the webhooks of a key's jobs, for its holder to check them with."""
    from agent_app.access.key_admin import find_key
    from agent_app.webhooks.signature import key_secret

    root = read_secret("webhook_secret")
    with open_database(load_config(config)) as connection:
        text = key_secret(root, find_key(connection, name)[0])
    typer.echo(json.dumps({"name": name, "secret": text}) if as_json else text)
