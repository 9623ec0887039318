"""`agent-app keys`."""

import json
from typing import Annotated

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config, read_secret

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    expires: Annotated[str, typer.Option(help="A span such as 90d; without it: never.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="chat (default), admin, approve; knowledge:NAME: only this collection."),
    ] = None,
    limits: Annotated[
        list[str] | None, typer.Option("--limit", help="NAME=NUMBER, as in keys limit; repeatable.")
    ] = None,
    resident: Annotated[
        bool, typer.Option("--resident", help="Its data stays on our hosts: never a cloud.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Make a key and print it, this once."""
    from agent_app.access.key_admin import create_key, parse_duration, parse_limits
    from agent_app.access.keys import Digester

    span = parse_duration(expires) if expires else None
    digester = Digester(read_secret("key_secret"))
    with open_database(load_config(config)) as connection:
        made = create_key(
            connection,
            digester,
            name,
            expires=span,
            scopes=scope or ["chat"],
            limits=parse_limits(limits or []),
            resident=resident,
        )
    typer.echo(json.dumps(made) if as_json else made["key"])


@app.command("list")
def list_(as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """List keys: names and dates, never the keys."""
    from agent_app.access.key_admin import list_keys
    from agent_app.access.limits import LIMIT_NAMES

    with open_database(load_config(config)) as connection:
        found = list_keys(connection)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key in found:
        state = "revoked" if key["revoked_at"] else f"expires {key['expires_at'] or 'never'}"
        used = key["last_used_at"] or "never"
        marks = ["resident"] if key["resident"] else []
        marks += [f"{name}={key[name]}" for name in LIMIT_NAMES if key[name] is not None]
        line = f"{key['name']}  {key['prefix']}…  {state}  last used {used}  {' '.join(marks)}"
        typer.echo(line.rstrip())


@app.command("limit")
def limit(name: str, limits: list[str], config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Change limits of a key: NAME=NUMBER, 0 for none, default for the configuration's."""
    from agent_app.access.key_admin import limit_key, parse_limits

    with open_database(load_config(config)) as connection:
        limit_key(connection, name, parse_limits(limits))
    typer.echo(f"{name} is limited anew; processes follow within 5 s")


@app.command("rotate")
def rotate(
    name: str,
    overlap: Annotated[str, typer.Option(help="How long the old secret stays valid.")] = "24h",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Give a key a new secret and print it, this once."""
    from agent_app.access.key_admin import parse_duration, rotate_key
    from agent_app.access.keys import Digester

    span, digester = parse_duration(overlap), Digester(read_secret("key_secret"))
    with open_database(load_config(config)) as connection:
        made = rotate_key(connection, digester, name, overlap=span)
    typer.echo(json.dumps(made) if as_json else made["key"])


@app.command("revoke")
def revoke(name: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Revoke a key by its name or id; effective within five seconds."""
    from agent_app.access.key_admin import revoke_key

    with open_database(load_config(config)) as connection:
        revoke_key(connection, name)
    typer.echo(f"{name} is revoked")
