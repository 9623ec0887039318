"""`agent-app audit`."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import load_config, read_secret
from agent_app.errors import InvalidRequest

if TYPE_CHECKING:
    from agent_app.audit.chain import Head

app = typer.Typer(help="The audit: export, verify, pin.", no_args_is_help=True)

HeadOption = Annotated[
    str, typer.Option("--head", help="NUMBER:HASH noted elsewhere, which the chain must contain.")
]


@app.command("export")
def export(
    since: Annotated[str, typer.Option(help="A day or moment, UTC: 2026-11-01.")] = "",
    until: Annotated[str, typer.Option(help="The first day or moment left out.")] = "",
    key: Annotated[str, typer.Option(help="Only this key's, by name or id.")] = "",
    _format: Annotated[
        Literal["jsonl"], typer.Option("--format", help="An entry a line.")
    ] = "jsonl",
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Write the audit to stdout, its last line a signed manifest."""
    from agent_app.access.key_admin import find_key_id
    from agent_app.audit.export import export as run_export
    from agent_app.audit.reading import Chosen
    from agent_app.audit.vault import Vault

    vault = Vault(read_secret("audit_secret"))
    with open_database(load_config(config)) as connection:
        key_id = find_key_id(connection, key) if key else None
        chosen = Chosen(_moment(since, "--since"), _moment(until, "--until"), key_id)
        for line in run_export(connection, vault, chosen):
            sys.stdout.write(line + "\n")


@app.command("verify")
def verify(
    file: Annotated[Path | None, typer.Argument(help="An export; - is stdin.")] = None,
    head: HeadOption = "",
    public_key: Annotated[
        str, typer.Option(help="Whose signature the export must bear; default: our own.")
    ] = "",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Verify the chain in the database, or an export without it; 1 and the first break if not."""
    if file is None:
        _verify_database(head, as_json=as_json, config=config)
    else:
        _verify_export(file, public_key, as_json=as_json)


@app.command("head")
def head(as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print NUMBER:HASH of the newest entry; keep it where the database's owner cannot write."""
    from agent_app.audit.seal import read_head
    from agent_app.audit.vault import Vault

    with open_database(load_config(config)) as connection:
        found = read_head(connection)
    if as_json:
        public = Vault(read_secret("audit_secret")).public_key
        document = {"number": found.number, "hash": found.hash, "public_key": public}
        typer.echo(json.dumps(document))
    else:
        typer.echo(str(found))


def _verify_database(head: str, *, as_json: bool, config: Path) -> None:
    from agent_app.audit.reading import verify_chain

    pinned = _head(head) if head else None
    with open_database(load_config(config)) as connection:
        verdict = verify_chain(connection, pinned=pinned)
        row = connection.execute("SELECT count(*) FROM app.audit_outbox").fetchone()
    waiting, broken = row[0] if row else 0, verdict.broken
    if as_json:
        document = {
            "ok": broken is None,
            "entries": verdict.entries,
            "head": {"number": verdict.head.number, "hash": verdict.head.hash},
            "broken": {"number": broken.number, "why": broken.why} if broken else None,
            "waiting": waiting,
        }
        typer.echo(json.dumps(document))
    elif broken:
        typer.echo(f"entry {broken.number}: {broken.why}; {verdict.entries} entries before hold")
    else:
        typer.echo(f"{verdict.entries} entries hold, {waiting} wait; head {verdict.head}")
    raise typer.Exit(1 if broken else 0)


def _verify_export(file: Path, public_key: str, *, as_json: bool) -> None:
    from agent_app.audit.export import verify_file

    if not public_key and (secret := read_secret("audit_secret", required=False)):
        from agent_app.audit.vault import Vault

        public_key = Vault(secret).public_key
    with _opened(file) as lines:
        verdict = verify_file(lines, public_key=public_key or None)
    if as_json:
        document = {
            "ok": not verdict.problems,
            "entries": verdict.entries,
            "head": {"number": verdict.head.number, "hash": verdict.head.hash},
            "public_key": verdict.public_key,
            "signer_known": bool(public_key),
            "problems": verdict.problems,
        }
        typer.echo(json.dumps(document))
    else:
        signer = "our own key" if public_key else "the key it names itself"
        for problem in verdict.problems:
            typer.echo(problem)
        if not verdict.problems:
            typer.echo(f"{verdict.entries} entries hold, signed by {signer} {verdict.public_key}")
    raise typer.Exit(1 if verdict.problems else 0)


@contextmanager
def _opened(file: Path) -> Iterator[TextIO]:
    if str(file) == "-":
        yield sys.stdin
        return
    try:
        with file.open(encoding="utf-8") as lines:
            yield lines
    except OSError as error:
        raise InvalidRequest(
            error.strerror or "cannot be read",
            place=str(file),
            cure="name an export, or - for stdin",
        ) from error


def _moment(text: str, option: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is no moment", place=option, cure="write 2026-11-01 or 2026-11-01T12:00Z"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _head(text: str) -> "Head":
    from agent_app.audit.chain import Head

    match = re.fullmatch(r"(\d+):([0-9a-f]{64})", text)
    if match is None:
        raise InvalidRequest(
            f"{text!r} is no head", place="--head", cure="write what agent-app audit head printed"
        )
    return Head(int(match[1]), match[2])
