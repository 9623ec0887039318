"""`ops verify`: prove that hosts are what the inventory says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.options import Inventory, Json
from ops.cli.output import print_json

if TYPE_CHECKING:
    from ops.verify import Report

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def verify(
    inventory: Inventory,
    parts: Annotated[
        list[str] | None, typer.Argument(help="Only these: redis edge ... Default: all.")
    ] = None,
    hardening: Annotated[
        bool, typer.Option("--hardening", help="Only how hosts are hardened: docs/hardening.md.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.")] = None,
    as_json: Json = False,
    ca_file: Annotated[
        Path | None, typer.Option(help="Roots of your own authority, for the edge's certificate.")
    ] = None,
) -> None:
    """Prove that the hosts are what the inventory says.

    Changes nothing. Exit status 0: everything holds; 1: something does not.

    Example: ops verify -i inventories/example redis edge
    """

    from rich.console import Console

    from ops.fleet import load
    from ops.verify import run_checks
    from ops.verify.trust import trusted_roots

    fleet = load(inventory)
    errors = Console(stderr=True)
    with errors.status("connecting") as status:
        report = run_checks(
            fleet,
            parts=[*(parts or ()), *(["hardening"] if hardening else [])],
            trusted=trusted_roots(inventory, ca_file),
            junit=junit,
            seen=lambda result: status.update(f"{result.host}  {result.part}: {result.check}"),
        )
    if as_json:
        print_json(report.as_dict())
    else:
        print_report(report)
    raise typer.Exit(0 if report.passed else 1)


def print_report(report: Report) -> None:
    """Print a table of parts and hosts, then each failure in full."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    hosts = list(dict.fromkeys(result.host for result in report.results))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for host in hosts:
        table.add_column(host)
    for part in dict.fromkeys(result.part for result in report.results):
        cells = []
        for host in hosts:
            mine = [r for r in report.results if (r.part, r.host) == (part, host)]
            failed = sum(result.outcome == "failed" for result in mine)
            good = sum(result.outcome == "passed" for result in mine)
            wrong = Text(f"{failed} of {len(mine)} failed", style="red")
            right = Text(f"{good} ok" if good else "-", style="green" if good else "dim")
            cells.append(wrong if failed else right)
        table.add_row(part, *cells)
    console.print(table)
    for result in report.results:
        if result.outcome == "failed":
            console.print(f"\nfailed on {result.host}: {result.part}: {result.check}", style="red")
            console.print(Text("\n".join(f"  {line}" for line in result.message.splitlines())))
    seconds = sum(result.seconds for result in report.results)
    console.print(
        f"\n{report.count('passed')} hold, {report.count('failed')} do not, "
        f"{report.count('skipped')} passed over, in {seconds:.1f} seconds"
    )
