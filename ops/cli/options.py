"""Options that several commands have in common, and how their words are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Inventory = Annotated[
    Path, typer.Option("-i", "--inventory", envvar="OPS_INVENTORY", help="Folder or file.")
]
Limit = Annotated[str, typer.Option(help="Only these hosts, comma-separated.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonEvents = Annotated[
    bool, typer.Option("--json", help="Print JSON; while it works, a line an event.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Why = Annotated[str, typer.Option(help="For the journal, and for whoever is locked out.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for another's operation.")]
Drain = Annotated[float, typer.Option(min=0, help="Seconds that requests under way may take.")]
Ready = Annotated[float, typer.Option(min=1, help="Seconds that an engine may take to load.")]
Start = Annotated[float, typer.Option(min=1, help="Seconds that an instance may take to start.")]
Most = Annotated[int, typer.Option("--max-unavailable", min=1, help="How many are out at once.")]


def parse_limit(text: str) -> tuple[str, ...]:
    """Read host names; none of them means every host.

    Raises:
        InputError: The option is given and names no host, as `,` does.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if text and not names:
        from ops.errors import InputError

        raise InputError(
            f"{text!r} names no host",
            place="--limit",
            cure="name hosts, as in --limit gpu1,gpu2, or leave it out for all",
        )
    return names
