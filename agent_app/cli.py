"""The `agent-app` command: serve, migrate, keys, knowledge, check."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent_app.config import Config, load_config, read_secret
from agent_app.errors import AgentAppError, ConfigError, DatabaseUnavailable

if TYPE_CHECKING:
    import psycopg

app = typer.Typer(
    help="The agent app of Rackhand.", no_args_is_help=True, pretty_exceptions_enable=False
)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
knowledge = typer.Typer(help="The knowledge base.", no_args_is_help=True)
tickets = typer.Typer(help="Tickets that the agent opened.", no_args_is_help=True)
app.add_typer(tickets, name="tickets")
app.add_typer(keys, name="keys")
app.add_typer(knowledge, name="knowledge")

ConfigPath = Annotated[Path, typer.Option("--config", help="The configuration file.")]
DEFAULT_CONFIG = Path("/etc/agent_app/config.yml")
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8200,
    metrics_port: Annotated[int, typer.Option(help="Private port of /metrics.")] = 8300,
    metrics_host: Annotated[str, typer.Option(help="Its address; default: --host.")] = "",
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Serve until SIGTERM, then let streams finish."""
    from agent_app.api.server import serve as run_server

    run_server(
        load_config(config),
        host=host,
        port=port,
        metrics_host=metrics_host or host,
        metrics_port=metrics_port,
    )


@app.command()
def migrate(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Bring the database's tables up to this release."""
    from agent_app.state.migrate import migrate as run_migrations

    typer.echo(f"database is at revision {run_migrations(load_config(config))}")


@app.command()
def check(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Check the configuration file; touch nothing."""
    load_config(config)
    typer.echo(f"{config}: valid")


@keys.command("create")
def create(
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    expires: Annotated[str, typer.Option(help="A span such as 90d; without it: never.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="chat (default) or admin.")] = None,
    limits: Annotated[
        list[str] | None, typer.Option("--limit", help="NAME=NUMBER, as in keys limit; repeatable.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Make a key and print it, this once."""
    from agent_app.access.key_admin import create_key, parse_duration, parse_limits
    from agent_app.access.keys import Digester

    span = parse_duration(expires) if expires else None
    digester = Digester(read_secret("key_secret"))
    with _connection(load_config(config)) as connection:
        made = create_key(
            connection,
            digester,
            name,
            expires=span,
            scopes=scope or ["chat"],
            limits=parse_limits(limits or []),
        )
    typer.echo(json.dumps(made) if as_json else made["key"])


@keys.command("list")
def list_(as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """List keys: names and dates, never the keys."""
    from agent_app.access.key_admin import list_keys
    from agent_app.access.limits import LIMIT_NAMES

    with _connection(load_config(config)) as connection:
        found = list_keys(connection)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key in found:
        state = "revoked" if key["revoked_at"] else f"expires {key['expires_at'] or 'never'}"
        used = key["last_used_at"] or "never"
        limits = " ".join(f"{name}={key[name]}" for name in LIMIT_NAMES if key[name] is not None)
        typer.echo(f"{key['name']}  {key['prefix']}…  {state}  last used {used}  {limits}".rstrip())


@keys.command("limit")
def limit(name: str, limits: list[str], config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Change limits of a key: NAME=NUMBER, 0 for none, default for the configuration's."""
    from agent_app.access.key_admin import limit_key, parse_limits

    with _connection(load_config(config)) as connection:
        limit_key(connection, name, parse_limits(limits))
    typer.echo(f"{name} is limited anew; processes follow within 5 s")


@keys.command("rotate")
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
    with _connection(load_config(config)) as connection:
        made = rotate_key(connection, digester, name, overlap=span)
    typer.echo(json.dumps(made) if as_json else made["key"])


@keys.command("revoke")
def revoke(name: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Revoke a key by its name or id; effective within five seconds."""
    from agent_app.access.key_admin import revoke_key

    with _connection(load_config(config)) as connection:
        revoke_key(connection, name)
    typer.echo(f"{name} is revoked")


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
    with _connection(load_config(config)) as connection:
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


@knowledge.command("ingest")
def ingest(directory: Path, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Read all Markdown files of a folder; changed ones replace their old text."""
    from agent_app.state.knowledge import ingest as run_ingest

    with _connection(load_config(config)) as connection:
        done = run_ingest(connection, directory)
    typer.echo(f"{done.new} new or changed, {done.unchanged} unchanged")


@tickets.command("list")
def list_of_tickets(
    limit: Annotated[int, typer.Option(help="Most to show.", min=1)] = 50,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """List tickets, newest first."""
    from agent_app.state.tickets import list_tickets

    with _connection(load_config(config)) as connection:
        found = list_tickets(connection, limit=limit)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for ticket in found:
        typer.echo("{id}  {priority}  {created_at}  webhook {webhook}  {title}".format(**ticket))


@contextmanager
def _connection(config: Config) -> "Iterator[psycopg.Connection]":
    import psycopg

    from agent_app.state.database import connection_string

    conninfo = connection_string(
        config.database, user=config.database.user, password=read_secret("database_password")
    )
    place = f"{config.database.host}:{config.database.port}/{config.database.name}"
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            yield connection
    except psycopg.errors.UndefinedTable as error:
        raise ConfigError(
            "the tables are not there", place=place, cure="run agent-app migrate"
        ) from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            str(error).strip(), place=place, cure="check database: in the config"
        ) from error


def main() -> None:
    """Run the command; errors of ours are one line, 2 where configuration is at fault, else 1."""
    try:
        app()
    except AgentAppError as error:
        typer.echo(f"agent-app: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
