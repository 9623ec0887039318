"""What every command that changes the fleet does with its plan: show, ask, carry out, tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ops.cli.output import print_json

if TYPE_CHECKING:
    from ops.fleet.model import Fleet
    from ops.operations.journal import Operation
    from ops.operations.plan import Plan
    from ops.operations.run import Reporter

KEEPER_SECONDS = 300.0
"""How long the host that keeps lock and journal may take to let us in after its reboot."""
KEEPER_POLL_SECONDS = 2.0


def carry_out(
    fleet: Fleet, plan: Plan, wait: float, *, yes: bool, dry_run: bool, as_json: bool
) -> Operation | None:
    """Show a plan, ask, carry it out; return what became of it, None if it was only shown."""
    import time

    from rich.console import Console

    from ops.operations.run import begin

    console = Console(highlight=False, soft_wrap=True, stderr=as_json)
    if dry_run and as_json:
        print_json(plan.as_record())
        return None
    if not as_json:
        for line in tell_plan(plan):
            console.print(line, markup=False)
    if dry_run:
        return None
    if not yes:
        typer.confirm("Go on?", abort=True, err=True)
    began = time.monotonic()
    operation = begin(fleet, plan, reporter(as_json), wait_seconds=wait)
    if not as_json:
        console.print(f"{operation.status} in {time.monotonic() - began:.1f} s")
    return operation


def carry_out_through_reboots(
    fleet: Fleet, plan: Plan, wait: float, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Carry a plan out; where the keeper of lock and journal reboots, take it up afterwards."""
    from ops.operations.keeper import LockLostError, keeper

    try:
        carry_out(fleet, plan, wait, yes=yes, dry_run=dry_run, as_json=as_json)
    except LockLostError as lost:
        name = lost.operation
        reboots = {host for step in plan.steps for host in step.values.get("hosts", ())}
        if not name or keeper(fleet).name not in reboots:
            raise
        operation = _resume_when_back(fleet, name, as_json)
        if not as_json:
            typer.echo(operation.status)


def _resume_when_back(fleet: Fleet, name: str, as_json: bool) -> Operation:
    """Take an operation up once its keeper lets us in: a host that boots resets lines at first.

    Raises:
        RemoteError: It does not, in time.
    """
    import time

    from ops.errors import RemoteError
    from ops.operations import run

    deadline = time.monotonic() + KEEPER_SECONDS
    while True:
        try:
            return run.resume(fleet, name, reporter(as_json))
        except RemoteError:  # of the lock alone: a step's own failure is told otherwise
            if time.monotonic() > deadline:
                raise
        time.sleep(KEEPER_POLL_SECONDS)


def tell_plan(plan: Plan) -> list[str]:
    """A plan as lines for a person."""
    lines = list(plan.summary)
    lines += [f"  {number}. {step.title}" for number, step in enumerate(plan.steps, 1)]
    return lines + [f"note: {warning}" for warning in plan.warnings]


def reporter(as_json: bool) -> Reporter:
    """Who is told while an operation runs."""
    from ops.operations.report import JsonReporter, PeopleReporter

    if as_json:
        return JsonReporter()
    from rich.console import Console

    return PeopleReporter(Console(highlight=False))
