"""`ops audit`: what was done on the agent app, by whom, and that nothing of it was changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ops.cli.options import Inventory, Json
from ops.cli.output import print_json, tell

if TYPE_CHECKING:
    from ops.fleet.model import Fleet

app = typer.Typer(
    help="The audit of the agent app: exported, verified, pinned.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

BLOCK = 65536
HOLDS_OR_NOT = frozenset({0, 1})


@app.command("export")
def export(
    inventory: Inventory,
    to: Annotated[Path, typer.Option(help="The file to write; it must not exist yet.")],
    since: Annotated[str, typer.Option(help="A day or moment, UTC: 2026-11-01.")] = "",
    until: Annotated[str, typer.Option(help="The first day or moment left out.")] = "",
    key: Annotated[str, typer.Option(help="Only this key's, by name or id.")] = "",
    as_json: Json = False,
) -> None:
    """Write the audit into a file, readable by you only, and verify what was written.

    Exit status 0: the file holds; 1: it does not, and the first break is named.

    Example: ops audit export --to audit-2026-11.jsonl --since 2026-11-01
    """
    from ops.agent.command import agent_app
    from ops.agent.host import ask
    from ops.errors import InputError
    from ops.fleet import load

    if to.exists():
        raise InputError(
            "the file is there already", place=str(to), cure="name another; audits are not replaced"
        )
    fleet = load(inventory)
    partial = to.with_name(f".{to.name}.partial")
    line = agent_app("audit", "export", since=since, until=until, key=key)
    try:
        with _create_private(partial) as file:
            ask(fleet, line, say=tell, sink=file.write)
        partial.rename(to)
    finally:
        partial.unlink(missing_ok=True)
    _report(_verify_file(fleet, to), as_json, str(to))


@app.command("verify")
def verify(
    inventory: Inventory,
    file: Annotated[
        Path | None, typer.Argument(exists=True, help="An export; without it the database.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="What `ops audit head` once printed; the chain must contain it.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Verify the chain of the database, or an export of this machine.

    Exit status 0: it holds; 1: it does not, and the first break is named.

    Example: ops audit verify --head 812:9f…
    """
    from ops.agent.command import agent_app
    from ops.agent.host import ask_json
    from ops.fleet import load

    fleet = load(inventory)
    if file is not None:
        _report(_verify_file(fleet, file), as_json, str(file))
    line = agent_app("audit", "verify", head=head, json=True)
    _report(ask_json(fleet, line, say=tell, accept=HOLDS_OR_NOT), as_json, "the database")


@app.command("head")
def head(inventory: Inventory, as_json: Json = False) -> None:
    """Print NUMBER:HASH of the newest entry; keep it where nobody of the fleet can write.

    Example: ops audit head
    """
    from ops.agent.command import agent_app
    from ops.agent.host import ask_json
    from ops.fleet import load

    found = ask_json(load(inventory), agent_app("audit", "head", json=True), say=tell)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['number']}:{found['hash']}")


def _create_private(path: Path) -> BinaryIO:
    """Open a new file that only its owner can read, whatever the umask."""
    import os

    path.unlink(missing_ok=True)  # of a run that was killed
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _verify_file(fleet: Fleet, file: Path) -> dict[str, Any]:
    from ops.agent.command import agent_app
    from ops.agent.host import ask_json

    def blocks() -> Iterator[bytes]:
        with file.open("rb") as content:
            yield from iter(lambda: content.read(BLOCK), b"")

    line = agent_app("audit", "verify", "-", json=True)
    verdict: dict[str, Any] = ask_json(fleet, line, say=tell, accept=HOLDS_OR_NOT, source=blocks)
    return verdict


def _report(verdict: dict[str, Any], as_json: bool, what: str) -> None:
    if as_json:
        print_json(verdict)
    elif verdict["ok"]:
        newest = verdict["head"]
        pin = f"{newest['number']}:{newest['hash']}"
        typer.echo(f"{what}: {verdict['entries']} entries hold; head {pin}")
    else:
        broken = verdict.get("broken") or {}
        problems = verdict.get("problems") or [f"entry {broken.get('number')}: {broken.get('why')}"]
        for problem in problems:
            typer.echo(f"{what}: {problem}")
    raise typer.Exit(0 if verdict["ok"] else 1)
