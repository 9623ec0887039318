"""`ops chaos`: faults on purpose, in the rehearsal fleet only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.options import DryRun, Inventory, Json
from ops.cli.output import print_json, print_table, tell

if TYPE_CHECKING:
    from ops.chaos.record import Record

app = typer.Typer(
    help="Break the rehearsal fleet of `ops lab` on purpose. Any other inventory is refused.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Seconds = Annotated[
    float | None, typer.Option("--for", min=1, help="Seconds until it ends by itself.")
]
Amount = Annotated[int | None, typer.Option(help="How much, of faults that know an amount.")]


@app.command("list")
def list_(inventory: Inventory, as_json: Json = False) -> None:
    """Show the faults that there are now, and those that can be injected.

    Example: ops chaos list -i inventories/lab
    """
    from ops.chaos import record
    from ops.chaos.fault import FAULTS
    from ops.chaos.ground import require_lab

    lab = require_lab(inventory)
    now = [_row(found) for found in record.load(lab.name)]
    catalogue = [
        {
            "fault": fault.name,
            "target": fault.target,
            "does": fault.does,
            "ends": fault.ends,
            "amount": f"{fault.amount} {fault.unit}" if fault.amount is not None else "",
        }
        for fault in FAULTS
    ]
    if as_json:
        print_json({"lab": lab.name, "now": now, "faults": catalogue})
        return
    typer.echo(f"Lab {lab.name}: {'no fault now' if not now else f'{len(now)} fault(s) now'}")
    if now:
        columns = {"fault": "fault", "target": "target", "amount": "amount", "ends in": "ends in"}
        print_table(now, columns, right=frozenset({"amount"}))
    typer.echo("")
    print_table(
        catalogue,
        {"fault": "fault", "target": "target", "amount": "amount", "does": "does", "ends": "end"},
        right=frozenset(),
    )


@app.command()
def inject(
    inventory: Inventory,
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="One of `ops chaos list`.")],
    target: Annotated[
        str, typer.Argument(metavar="[TARGET]", help="Such as node1, node1:nginx.service.")
    ] = "",
    seconds: Seconds = None,
    amount: Amount = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Begin a fault; injected again, it gets the new amount and end.

    Example: ops chaos inject kill node1:engine@demo-* -i inventories/lab

    Example: ops chaos inject net-cut node1:node3 --for 30 -i inventories/lab
    """
    from ops.chaos import inject as work
    from ops.chaos.fault import amount_of, fault_named
    from ops.chaos.ground import require_lab
    from ops.chaos.target import read_target

    lab = require_lab(inventory)
    kind = fault_named(fault)
    new = work.wanted(lab, kind, read_target(kind, target, lab), amount_of(kind, amount), seconds)
    if dry_run:
        told = [str(step) for step in work.steps(new)]
        if as_json:
            print_json({"lab": lab.name, "steps": told})
        else:
            typer.echo("\n".join(told))
        return
    made, said = work.begin(lab, new)
    if as_json:
        print_json({"lab": lab.name, **_row(made), "said": said})
        return
    typer.echo(f"{kind.name} {made.target}: begun" + (f" ({said})" if said else ""))
    ends = f"in {seconds:.0f} s by itself" if seconds else f"ops chaos end {kind.name}"
    typer.echo(f"ends: {kind.ends if kind.momentary else ends}")


@app.command()
def end(
    inventory: Inventory,
    fault: Annotated[str, typer.Argument(metavar="[FAULT|all]", help="Which.")] = "all",
    as_json: Json = False,
) -> None:
    """End faults: all of them, or those of a name. What is over already is no error.

    Exit status 1: one could not be ended; it stays on record.

    Example: ops chaos end all -i inventories/lab
    """
    from ops.chaos import inject as work
    from ops.chaos import record
    from ops.chaos.ground import require_lab

    lab = require_lab(inventory)
    chosen = work.matching(record.load(lab.name), fault)
    failed = work.end(lab, chosen)
    ended = [found for found in chosen if not any(found.is_same(each) for each, _ in failed)]
    if as_json:
        problems = [{**_row(each), "problem": str(problem)} for each, problem in failed]
        print_json({"lab": lab.name, "ended": [_row(found) for found in ended], "failed": problems})
    else:
        for found in ended:
            typer.echo(f"{found.fault} {found.target}: ended")
        for each, problem in failed:
            tell(f"{each.fault} {each.target}: not ended: {problem}")
        if not chosen:
            typer.echo("no such fault now" if fault != work.ALL else "no fault now")
    raise typer.Exit(1 if failed else 0)


def _row(found: Record) -> dict[str, Any]:
    import time

    left = None if found.until is None else max(0.0, found.until - time.time())
    return {
        "fault": found.fault,
        "target": str(found.target),
        "amount": found.amount,
        "begun": found.begun,
        "until": found.until,
        "ends in": "ops chaos end" if left is None else f"{left:.0f} s",
        "units": found.found.split() if found.fault in ("hang", "stop", "clock") else [],
    }
