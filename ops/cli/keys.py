"""`ops keys`: API keys of the agent app."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ops.cli.options import Inventory, Json, Yes
from ops.cli.output import minute, print_json, print_table, tell

app = typer.Typer(
    help="API keys: made, limited, rotated, revoked, erased.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(help="The key's name.")]
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_runs", "budget_soft",
          "budget_medium", "budget_hard", "weight")  # fmt: skip


class UsageChoice(StrEnum):
    """What becomes of an erased key's figures."""

    SUMS = "sums"
    DELETE = "delete"


@app.command("list")
def list_(inventory: Inventory, as_json: Json = False) -> None:
    """List keys with their limits; never the keys themselves.

    Example: ops keys list -i inventories/example
    """
    found = _ask(inventory, "list", json=True)
    if as_json:
        print_json({"keys": found})
        return
    rows = [{**key, "state": _state(key), "limits": _limits(key)} for key in found]
    columns = {"name": "name", "prefix": "begins with", "state": "state",
               "last_used_at": "last used", "scopes": "scopes", "limits": "limits"}  # fmt: skip
    shown = [
        {
            **row,
            "scopes": _scopes(row),
            "last_used_at": minute(row.get("last_used_at")),
        }
        for row in rows
    ]
    print_table(shown, columns, right=frozenset())


@app.command("create")
def create(
    inventory: Inventory,
    name: Name,
    expires: Annotated[str, typer.Option(help="A span such as 90d; without it: never.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="chat (default), admin, approve, knowledge:COLLECTION; repeatable."),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER, as in `ops keys limit`; repeatable.")
    ] = None,
    resident: Annotated[
        bool, typer.Option("--resident", help="Its data stays on our hosts: never a cloud.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a key. It is printed on standard output, this once.

    Example: ops keys create my-client --expires 90d --limit budget_hard=2000000
    """
    made = _ask(
        inventory,
        "create",
        name=name,
        expires=expires,
        scope=scope,
        limit=limit,
        resident=resident,
        json=True,
    )
    _show_new(made, as_json)


@app.command("limit")
def limit(
    inventory: Inventory,
    name: Name,
    limits: Annotated[
        list[str], typer.Argument(help="NAME=NUMBER; 0 is none, default is the configuration's.")
    ],
    as_json: Json = False,
) -> None:
    """Change limits of a key; it holds within five seconds.

    Names: requests_per_minute, tokens_per_minute, concurrent_runs, budget_soft,
    budget_medium, budget_hard (tokens a month), weight (share of full engines).

    Example: ops keys limit my-client tokens_per_minute=9000 budget_hard=default
    """
    _tell_done(inventory, as_json, "limited", name, "limit", name, *limits)


@app.command("rotate")
def rotate(
    inventory: Inventory,
    name: Name,
    overlap: Annotated[str, typer.Option(help="How long the old secret stays valid.")] = "24h",
    as_json: Json = False,
) -> None:
    """Give a key a new secret. It is printed on standard output, this once.

    Example: ops keys rotate my-client --overlap 7d
    """
    _show_new(_ask(inventory, "rotate", name, overlap=overlap, json=True), as_json)


@app.command("revoke")
def revoke(inventory: Inventory, name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Revoke a key; its clients are refused within five seconds.

    Example: ops keys revoke my-client
    """
    if not yes:
        typer.confirm(f"Revoke {name}? Its clients are refused from then on.", abort=True, err=True)
    _tell_done(inventory, as_json, "revoked", name, "revoke", name)


@app.command("erase")
def erase(
    inventory: Inventory,
    name: Name,
    keep_tickets: Annotated[
        bool, typer.Option("--keep-tickets", help="Leave tickets, without their links.")
    ] = False,
    usage: Annotated[
        UsageChoice, typer.Option(help="Keep usage as sums of nobody, or delete it.")
    ] = UsageChoice.SUMS,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase all data of a key from every store; prints the receipt.

    Example: ops keys erase my-client > receipt.json
    """
    from ops.agent.command import agent_app
    from ops.agent.host import ask_json
    from ops.fleet import load

    fleet = load(inventory)
    chosen: dict[str, Any] = {"key": name, "keep_tickets": keep_tickets, "usage": usage.value}
    if not yes:
        found = ask_json(fleet, agent_app("erase", **chosen, dry_run=True, json=True), say=tell)
        for store, count in found["found"].items():
            tell(f"  {store}: {count}")
        typer.confirm(f"Erase all of this of {name}, for good?", abort=True, err=True)
    receipt = ask_json(fleet, agent_app("erase", **chosen, yes=True, json=True), say=tell)
    print_json(receipt)
    if not as_json:
        tell(f"{name} is erased; keep the receipt above")


def _ask(inventory: Any, *words: str, **options: Any) -> Any:
    from ops.agent.command import agent_app
    from ops.agent.host import ask_json
    from ops.fleet import load

    return ask_json(load(inventory), agent_app("keys", *words, **options), say=tell)


def _tell_done(inventory: Any, as_json: bool, done: str, name: str, *words: str) -> None:
    from ops.agent.command import agent_app
    from ops.agent.host import ask
    from ops.fleet import load

    said = ask(load(inventory), agent_app("keys", *words), say=tell).output.strip()
    if as_json:
        print_json({"name": name, done: True})
    else:
        typer.echo(said)


def _show_new(made: dict[str, Any], as_json: bool) -> None:
    """Print a key where a pipe can take it, and nothing else there."""
    if as_json:
        print_json(made)
        return
    tell(f"The key of {made.get('name', 'the client')}, shown only now:")
    typer.echo(made["key"])


def _state(key: dict[str, Any]) -> str:
    if key.get("revoked_at"):
        return "revoked"
    return f"until {minute(key['expires_at'])}" if key.get("expires_at") else "valid"


def _scopes(key: dict[str, Any]) -> str:
    return " ".join([*(key.get("scopes") or ()), *(["resident"] if key.get("resident") else [])])


def _limits(key: dict[str, Any]) -> str:
    return " ".join(f"{name}={key[name]}" for name in LIMITS if key.get(name) is not None)
