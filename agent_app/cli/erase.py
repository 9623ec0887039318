"""`agent-app erase`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config, read_secret
from agent_app.errors import InvalidRequest

if TYPE_CHECKING:
    import psycopg

    from agent_app.state.erasure import Eraser, Target

app = typer.Typer(
    help="Erase all data of a key or a thread, with a receipt.", invoke_without_command=True
)


class UsageChoice(StrEnum):
    """What becomes of the figures."""

    SUMS = "sums"
    DELETE = "delete"


@app.callback()
def erase(
    context: typer.Context,
    key: Annotated[str, typer.Option(help="All data of this key, by name or id.")] = "",
    thread: Annotated[str, typer.Option(help="All data of this thread.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    keep_tickets: Annotated[
        bool, typer.Option("--keep-tickets", help="Leave tickets, without their links.")
    ] = False,
    usage: Annotated[
        UsageChoice, typer.Option(help="Keep usage as sums of nobody, or delete it.")
    ] = UsageChoice.SUMS,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Erase all data of a key or a thread from every store; print the receipt."""
    if context.invoked_subcommand:
        return
    if bool(key) == bool(thread):
        raise InvalidRequest("name one subject", cure="give --key NAME or --thread ID")
    from agent_app.state.erasure import Options

    with _eraser(config) as (eraser, connection):
        target = _find(connection, key, thread)
        options = Options(keep_tickets=keep_tickets, usage=usage.value)
        found = eraser.preview(target, options)
        if dry_run:
            document = {"dry_run": True, "subject_id": str(target.id), "found": found}
            typer.echo(json.dumps(document) if as_json else _table(found))
            return
        if not yes:
            typer.echo(_table(found), err=True)
            typer.confirm("Erase this for good?", abort=True, err=True)
        receipt = eraser.erase(target, options)
    typer.echo(json.dumps(receipt, indent=None if as_json else 2))


@app.command("verify")
def verify(
    receipt: Annotated[Path, typer.Argument(help="What erase printed; - is stdin.")],
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Verify a receipt, and look again whether anything of its subject is left; 1 if so."""
    from agent_app.audit.vault import Vault
    from agent_app.state.erasure import Target
    from agent_app.state.receipts import problems_of

    document = _read(receipt)
    public_key = Vault(read_secret("audit_secret")).public_key
    with _eraser(config) as (eraser, connection):
        problems = problems_of(document, connection, public_key=public_key)
        left = eraser.left_of(Target(document["subject"], UUID(document["subject_id"])))
    if as_json:
        ok = not problems and not left
        typer.echo(json.dumps({"ok": ok, "problems": problems, "left": left}))
    else:
        for problem in problems:
            typer.echo(problem)
        for store, count in left.items():
            typer.echo(f"{store}: {count} left")
        if not problems and not left:
            typer.echo(f"receipt {document['receipt']} holds, and nothing is left")
    raise typer.Exit(1 if problems or left else 0)


@contextmanager
def _eraser(path: Path) -> "Iterator[tuple[Eraser, psycopg.Connection[Any]]]":
    from agent_app.audit.vault import Vault
    from agent_app.state.audit import current_operator
    from agent_app.state.erasure import Eraser
    from agent_app.state.redis_names import RedisNames

    config = load_config(path)
    vault = Vault(read_secret("audit_secret"))
    names = RedisNames(config, read_secret("redis_password", required=False))
    with open_database(config) as connection:
        yield (
            Eraser(
                connection,
                names,
                vault,
                by=current_operator(),
                lease_seconds=config.limits.lease_seconds,
            ),
            connection,
        )


def _find(connection: "psycopg.Connection[Any]", key: str, thread: str) -> "Target":
    from agent_app.access.key_admin import find_key_id
    from agent_app.state.erasure import Target

    if thread:
        return Target("thread", _uuid(thread, "--thread"))
    return Target("key", find_key_id(connection, key))


def _uuid(text: str, option: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no id", place=option, cure="give a UUID") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        document = json.loads(text)
        UUID(document["subject_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"no receipt: {error}", place=str(file), cure="give the file that erase printed"
        ) from error
    assert isinstance(document, dict)
    return document


def _table(found: dict[str, int]) -> str:
    if not found:
        return "nothing is there"
    return "\n".join(f"{store}: {count}" for store, count in sorted(found.items()))
