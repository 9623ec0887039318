"""`ops certs`: every certificate of the fleet, and how long it lasts."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.cli.options import Inventory, Json

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def certs(
    inventory: Inventory,
    within: Annotated[
        int, typer.Option(min=0, help="Exit with 1 where one lapses in so many days.")
    ] = 14,
    as_json: Json = False,
) -> None:
    """List certificates: the edges' as they serve them, the fleet's own CA and hosts.

    Exits with 1 where one has lapsed, is about to, or cannot be seen.

    Example: ops certs -i inventories/example --within 30
    """
    from ops.certs.listing import listing
    from ops.cli.output import print_json, print_table
    from ops.fleet import load
    from ops.secrets.vault import read_secrets

    fleet = load(inventory)
    rows = listing(fleet, read_secrets(fleet.inventory))
    if as_json:
        print_json([row.as_record() for row in rows])
    else:
        columns = {
            "kind": "certificate", "where": "host", "names": "valid for", "issuer": "issuer",
            "expires": "until", "days": "days", "renewed": "renewed by", "problem": "problem",
        }  # fmt: skip
        if not any(row.problem for row in rows):
            del columns["problem"]
        print_table((row.as_record() for row in rows), columns, right=frozenset({"days"}))
    if any(row.days is None or row.days < within for row in rows):
        raise typer.Exit(1)
