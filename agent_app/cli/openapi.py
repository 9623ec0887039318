"""`agent-app openapi`."""

import json

import typer

app = typer.Typer()


@app.command()
def openapi() -> None:
    """Print the OpenAPI document; needs neither configuration nor server."""
    from agent_app.api.app import make_api

    typer.echo(json.dumps(make_api().openapi(), indent=2, ensure_ascii=False))
