"""The `agent-app` command: its root, and what serves."""

import sys
from typing import Annotated

import typer

from agent_app.cli import (
    audit,
    erase,
    jobs,
    keys,
    knowledge,
    openapi,
    retention,
    tickets,
    usage,
    webhooks,
)
from agent_app.cli.options import DEFAULT_CONFIG, ConfigPath
from agent_app.config import load_config
from agent_app.errors import AgentAppError, ConfigError

app = typer.Typer(
    help="The agent app of Rackhand.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.add_typer(usage.app)
app.add_typer(audit.app, name="audit")
app.add_typer(erase.app, name="erase")
app.add_typer(retention.app, name="retention")
app.add_typer(openapi.app)
app.add_typer(keys.app, name="keys")
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(tickets.app, name="tickets")
app.add_typer(jobs.app, name="jobs")
app.add_typer(webhooks.app, name="webhooks")


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


def main() -> None:
    """Run the command; errors of ours are one line, 2 where configuration is at fault, else 1."""
    try:
        app()
    except AgentAppError as error:
        typer.echo(f"agent-app: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
