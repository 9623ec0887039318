"""`ops doctor`: what ails hosts, why, and the command that cures it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.options import Json
from ops.cli.output import print_json

if TYPE_CHECKING:
    from ops.doctor.finding import Report

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def doctor(
    local: Annotated[
        bool, typer.Option("--local", help="This machine alone: GPUs, driver, disks, memory.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Name what ails hosts, why, and the command that cures it. Changes nothing.

    Exit status 0: nothing critical; 1: something critical; 2: could not tell.

    Example: ops doctor --local
    """
    from ops.doctor.local import examine

    del local
    leave(examine(), as_json)


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
