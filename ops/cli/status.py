"""`ops status`: the fleet at a glance."""

from __future__ import annotations

import typer

from ops.cli.options import Inventory, Json
from ops.cli.output import print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def status(
    inventory: Inventory,
    as_json: Json = False,
) -> None:
    """Show hosts, models, slots, GPUs, and the operation that is running.

    Exit status 0: every host answers, its units are well, and no operation
    was left unfinished; 1: not so.

    Example: ops status -i inventories/example --json
    """

    from rich.console import Console

    from ops.fleet import load
    from ops.live.drawing import overview
    from ops.live.records import record
    from ops.live.watch import survey

    look = survey(load(inventory))
    if as_json:
        print_json(record(look))
    else:
        console = Console(highlight=False)
        console.print(overview(look, console.width))
    raise typer.Exit(0 if look.well else 1)
