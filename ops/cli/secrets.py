"""`ops secrets`: what the fleet made for itself, and how it is replaced."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.cli.options import (
    Drain,
    DryRun,
    Inventory,
    Json,
    JsonEvents,
    Most,
    Start,
    Wait,
    Why,
    Yes,
)

app = typer.Typer(
    help="List, show and rotate the secrets that the fleet made for itself.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_(inventory: Inventory, as_json: Json = False) -> None:
    """List secrets: since when, where they are used, how they are replaced; never a value.

    Example: ops secrets list -i inventories/example
    """
    from ops.cli.output import minute, print_json, print_table
    from ops.secrets.listing import rows

    found = rows(inventory)
    if as_json:
        print_json(found)
        return
    columns = {"name": "secret", "made": "made", "where": "opens", "how": "how it is replaced"}
    shown = [{**row, "made": minute(row["made"])} for row in found]
    print_table(shown, columns, right=frozenset())


@app.command()
def show(
    inventory: Inventory,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As ops secrets list has it.")],
    yes: Yes = False,
) -> None:
    """Print one secret. It asks first, and prints to a terminal only, unless --yes is given.

    Example: ops secrets show -i inventories/example grafana_admin
    """
    import sys

    from ops.errors import InputError
    from ops.secrets.store import used
    from ops.secrets.vault import read_secrets

    entries = read_secrets(inventory)
    if name not in entries:
        raise InputError(
            f"there is no secret {name}", place=name, cure="ops secrets list tells them"
        )
    if not yes:
        if not sys.stdout.isatty():
            raise InputError(
                "a secret is printed to a terminal only",
                place="standard output",
                cure="--yes, where a script is to have it",
            )
        typer.confirm(f"Print {name} on this terminal?", abort=True, err=True)
    typer.echo(used(entries[name]))


@app.command()
def rotate(
    inventory: Inventory,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="Default, and `all`: all of them.")
    ] = None,
    max_unavailable: Most = 1,
    drain_timeout: Drain = 330,
    ready_timeout: Start = 120,
    why: Why = "",
    wait: Wait = 0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
) -> None:
    """Replace secrets without a failed request.

    Whoever checks a secret takes both values while those that show it move, the
    app instance by instance; then the old one is taken no more.

    Example: ops secrets rotate -i inventories/example redis_agent_app --dry-run
    """
    from ops.app.plan import Choices
    from ops.app.state import following
    from ops.cli.carry_out import carry_out
    from ops.fleet import load
    from ops.operations.keeper import keeper
    from ops.secrets.catalogue import chosen
    from ops.secrets.plan import plan_rotation
    from ops.secrets.vault import read_secrets

    fleet = load(inventory)
    secrets = chosen(list(names or ()), read_secrets(inventory))
    choices = Choices(
        max_unavailable=max_unavailable,
        drain_seconds=drain_timeout,
        ready_seconds=ready_timeout,
        why=why,
    )
    stored = [name for secret in secrets for name in secret.stored]
    marks = {} if dry_run else _prepared(fleet.inventory, stored)
    plan = plan_rotation(keeper(fleet).name, secrets, marks, following(fleet).instances, choices)
    carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)


def _prepared(inventory: Any, names: list[str]) -> dict[str, str]:
    """Have the values that follow in the store, where nothing uses them yet."""
    from ops.secrets.rotation import prepare
    from ops.secrets.vault import store_of, told

    with told(), store_of(inventory).changing() as entries:
        return prepare(entries, names)
