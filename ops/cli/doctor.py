"""`ops doctor`: what ails hosts, why, and the command that cures it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.options import Json, Limit, parse_limit
from ops.cli.output import print_json
from ops.errors import InputError

if TYPE_CHECKING:
    from ops.doctor.finding import Report

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def doctor(
    hosts: Annotated[list[str] | None, typer.Argument(help="Only these. Default: all.")] = None,
    inventory: Annotated[
        Path | None,
        typer.Option("-i", "--inventory", envvar="OPS_INVENTORY", help="Folder or file."),
    ] = None,
    limit: Limit = "",
    local: Annotated[
        bool, typer.Option("--local", help="This machine alone: GPUs, driver, disks, memory.")
    ] = False,
    explain: Annotated[str, typer.Option(help="Tell a case: its name, or `all`.")] = "",
    as_json: Json = False,
) -> None:
    """Name what ails hosts, why, and the command that cures it. Changes nothing.

    Exit status 0: nothing critical; 1: something critical; 2: could not tell
    (a host cannot be reached, the inventory is wrong).

    Example: ops doctor -i inventories/example gpu1
    """
    if explain:
        show_cases(explain, as_json)
        return
    if local:
        from ops.doctor.local import examine

        leave(examine(), as_json)
    if inventory is None:
        raise InputError("no inventory is named", cure="ops doctor -i INVENTORY, or --local")
    from rich.console import Console

    from ops.doctor.ask import examine as examine_fleet
    from ops.fleet import load

    fleet = load(inventory)
    named = (*(hosts or ()), *parse_limit(limit))
    chosen = [fleet.host(name) for name in dict.fromkeys(named)] or list(fleet.hosts)
    with Console(stderr=True).status(f"asking {len(chosen)} host(s)"):
        report = examine_fleet(fleet, chosen)
    leave(report, as_json)


def leave(report: Report, as_json: bool) -> None:
    """Print a report and end; what still hangs in a driver does not keep us."""
    if as_json:
        print_json(report.as_record())
    else:
        print_report(report)
    sys.stdout.flush()
    os._exit(report.exit_code)


def print_report(report: Report) -> None:
    """Print it for a person."""
    from rich.console import Console
    from rich.text import Text

    from ops.doctor.drawing import draw

    console = Console(highlight=False)
    for line in draw(report, console.width):
        console.print(Text.assemble(*line), soft_wrap=True)


def show_cases(name: str, as_json: bool) -> None:
    """Print a case of the catalogue, or all of them.

    Raises:
        InputError: There is no such case.
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.text import Text

    from ops.doctor.drawing import draw_case
    from ops.doctor.judge import catalogue

    cases = [(layer, case) for layer, some in catalogue().items() for case in some]
    chosen = [(layer, case) for layer, case in cases if name in ("all", case.name)]
    if not chosen:
        raise InputError(f"no case is named {name}", cure="ops doctor --explain all")
    if as_json:
        print_json([{"layer": layer, **asdict(case)} for layer, case in chosen])
        return
    console = Console(highlight=False)
    for layer, case in chosen:
        for line in draw_case(layer, case, console.width):
            console.print(Text.assemble(*line), soft_wrap=True)
