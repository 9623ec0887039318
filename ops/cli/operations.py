"""`ops history`, `show`, `resume`, `abort`: operations on the fleet, whoever began them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.carry_out import reporter
from ops.cli.options import Inventory, Json, JsonEvents, Yes
from ops.cli.output import print_json

if TYPE_CHECKING:
    from ops.operations.journal import Operation

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
history_app = typer.Typer(**SETTINGS)
show_app = typer.Typer(**SETTINGS)
resume_app = typer.Typer(**SETTINGS)
abort_app = typer.Typer(**SETTINGS)

Name = Annotated[str, typer.Argument(metavar="ID", help="As ops history lists it.")]
Unfinished = Annotated[
    str, typer.Argument(metavar="[ID]", help="Default: the one that is unfinished.")
]


@history_app.command()
def history(inventory: Inventory, as_json: Json = False) -> None:
    """List operations on the fleet, newest first.

    Example: ops history -i inventories/example
    """

    from rich.console import Console

    from ops.fleet import load
    from ops.operations.journal import status
    from ops.operations.keeper import summaries

    rows = []
    for found in reversed(summaries(load(inventory))):
        first, last = found["entries"][:1], found["entries"][-1:]
        rows.append(
            {
                "id": found["id"],
                "verb": found["plan"]["verb"],
                "subject": found["plan"]["subject"],
                "why": found["plan"]["why"],
                "status": status(found["entries"], found["held"]),
                "by": first[0]["by"] if first else "",
                "began": first[0]["at"] if first else None,
                "seconds": round(last[0]["at"] - first[0]["at"], 1) if first else None,
            }
        )
    if as_json:
        print_json({"operations": rows})
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in table(rows) or ["no operation yet"]:
        console.print(line, markup=False)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Operations as lines: the id, which says what it was, is whole on any terminal."""
    width = max((len(row["id"]) for row in rows), default=0)
    lines = []
    for row in rows:
        took = f"{row['seconds']:.0f} s" if row["seconds"] is not None else "-"
        lines.append(f"{row['id']:<{width}}  {row['status']:<11}  {took:>7}  {row['by']}")
        lines += [f"    {row['why']}"] if row["why"] else []
    return lines


@show_app.command()
def show(inventory: Inventory, name: Name, as_json: Json = False) -> None:
    """Tell one operation: its plan and its journal.

    Example: ops show 20261125-211300-model-upgrade-demo
    """

    from rich.console import Console

    from ops.fleet import load
    from ops.operations.keeper import read

    operation = read(load(inventory), name)
    if as_json:
        record = {
            "id": operation.id,
            "status": operation.status,
            "owner": operation.owner,
            "plan": operation.plan.as_record(),
            "entries": list(operation.entries),
        }
        print_json(record)
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in tale(operation):
        console.print(line, markup=False)


def tale(operation: Operation) -> list[str]:
    """An operation as lines for a person."""
    plan = operation.plan
    lines = [f"{operation.id}: {plan.verb} {plan.subject}, {operation.status}"]
    lines += [f"  {line}" for line in plan.summary]
    if operation.held:
        lines.append(f"  {operation.owner.get('who')}@{operation.owner.get('machine')} works on it")
    for entry in operation.entries:
        clock = f"{datetime.fromtimestamp(entry['at'], UTC):%H:%M:%S}"
        number = entry.get("step")
        about = f"[{number + 1}] {plan.steps[number].title}" if number is not None else ""
        took = f" in {entry['seconds']:.1f} s" if "seconds" in entry else ""
        words = entry["event"] if not entry.get("how") else f"{entry['how']} by {entry['by']}"
        lines.append(f"{clock}  {words:<8} {about}{took}".rstrip())
        lines += [f"            {line}" for line in str(entry.get("why", "")).splitlines()]
    return lines


@resume_app.command()
def resume(inventory: Inventory, name: Unfinished = "", as_json: JsonEvents = False) -> None:
    """Go on with an unfinished operation from where its journal ends.

    Forward if it was going forward, back if it was being undone; from any
    machine that has this inventory.

    Example: ops resume -i inventories/example
    """
    from ops.fleet import load
    from ops.operations import run

    fleet = load(inventory)
    operation = run.resume(fleet, name or unfinished(fleet), reporter(as_json))
    _say_end(operation, as_json)


@abort_app.command()
def abort(
    inventory: Inventory, name: Unfinished = "", yes: Yes = False, as_json: JsonEvents = False
) -> None:
    """Bring back what an unfinished operation changed.

    Example: ops abort -i inventories/example --yes
    """
    from ops.fleet import load
    from ops.operations import run

    fleet = load(inventory)
    chosen = name or unfinished(fleet)
    if not yes:
        typer.confirm(f"Bring back what {chosen} changed?", abort=True, err=True)
    operation = run.abort(fleet, chosen, reporter(as_json))
    _say_end(operation, as_json)


def unfinished(fleet: Any) -> str:
    """Return the operation that is unfinished; there is at most one.

    Raises:
        InputError: There is none.
    """
    from ops.errors import InputError
    from ops.operations.journal import Status, status
    from ops.operations.keeper import summaries

    for found in reversed(summaries(fleet)):
        if status(found["entries"], found["held"]) not in (Status.DONE, Status.ROLLED_BACK):
            return str(found["id"])
    raise InputError("no operation is unfinished", cure="ops history lists them")


def _say_end(operation: Operation, as_json: bool) -> None:
    if not as_json:
        typer.echo(f"{operation.id}: {operation.status}")
