"""`agent-app jobs`."""

import json
from typing import Annotated, Any
from uuid import UUID

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config

app = typer.Typer(help="Long work of all keys.", no_args_is_help=True)

_LEFT_OUT = ("number", "request_sha256", "idempotency_key", "message", "history", "result")


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only these: queued, running, …")] = None,
    limit: Annotated[int, typer.Option(help="Most to show.", min=1)] = 50,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """List jobs, newest first, without what was said."""
    from agent_app.state.jobs import list_jobs

    with open_database(load_config(config)) as connection:
        found = list_jobs(connection, status=status, limit=limit)
    if as_json:
        shown = [{k: v for k, v in job.items() if k not in _LEFT_OUT} for job in found]
        typer.echo(json.dumps(shown, default=str))
        return
    for job in found:
        why = job["error"]["message"] if job["error"] else ""
        line = f"{job['id']}  {job['status']:<9}  {job['created_at']:%Y-%m-%d %H:%M:%S}"
        typer.echo(f"{line}  attempt {job['attempt']}  {why}".rstrip())


@app.command("show")
def show(job_id: UUID, as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show a job with its message and its result."""
    from agent_app.state.jobs import show_job

    with open_database(load_config(config)) as connection:
        _tell(show_job(connection, job_id), as_json=as_json)


@app.command("cancel")
def cancel(job_id: UUID, as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Cancel a job; one that runs ends within a third of limits.lease_seconds."""
    from agent_app.state.jobs import cancel_job

    with open_database(load_config(config)) as connection:
        job = cancel_job(connection, job_id)
    if as_json:
        _tell(job, as_json=True)
    else:
        typer.echo(
            f"{job_id} is {'being cancelled' if job['status'] == 'running' else job['status']}"
        )


def _tell(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(job, default=str))
        return
    for name, value in job.items():
        if value is not None:
            text = (
                json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
            )
            typer.echo(f"{name}: {text}")
