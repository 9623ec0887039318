"""`ops status`: the fleet at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ops.fleet.live import HostState

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def status(
    inventory: Annotated[
        Path, typer.Option("-i", "--inventory", envvar="OPS_INVENTORY", help="Folder or file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show hosts, models, slots and units.

    Exit status 0: every host answers and its units are active; 1: not so.

    Example: ops status -i inventories/example --json
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from ops.fleet import load
    from ops.fleet.live import survey

    states = survey(load(inventory))
    if as_json:
        rows = [{**asdict(state), "well": state.well} for state in states]
        typer.echo(json.dumps({"hosts": rows}, indent=2))
    else:
        Console(highlight=False).print(table(states))
    raise typer.Exit(0 if all(state.well for state in states) else 1)


def table(states: list[HostState]) -> Table:
    """Draw one row per host."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for heading in ("host", "address", "groups", "models", "units", "load", "memory"):
        drawn.add_column(heading)
    for state in states:
        if state.problem:
            problem = Text(state.problem, style="red")
            drawn.add_row(state.host, state.address, " ".join(state.groups), problem)
            continue
        models = [
            f"{name} {facts.get('active')} {facts.get('revision')}"
            for name, facts in state.engines.items()
        ]
        ill = [f"{unit} {now}" for unit, now in state.units.items() if now != "active"]
        units = Text("\n".join(ill), style="red") if ill else Text(f"{len(state.units)} active")
        drawn.add_row(
            state.host,
            state.address,
            " ".join(state.groups),
            "\n".join(models) or "-",
            units,
            f"{state.load:.2f}",
            f"{state.memory_used_mib / 1024:.1f} of {state.memory_total_mib / 1024:.0f} GiB",
        )
    return drawn
