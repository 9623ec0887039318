"""How commands print: lines and tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer


def tell(text: str) -> None:
    """Print a line for a person, never into what a script reads."""
    typer.echo(text, err=True)


def print_json(document: Any) -> None:
    """Print JSON for a script."""
    import json

    typer.echo(json.dumps(document, indent=2))


def print_table(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], *, right: frozenset[str]
) -> None:
    """Print rows as a table.

    Args:
        rows: What to print.
        columns: Key of a row → heading.
        right: Keys whose values are numbers.
    """
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for key, heading in columns.items():
        drawn.add_column(heading, justify="right" if key in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(row.get(key)) for key in columns))
    Console(highlight=False, markup=False).print(drawn)


def minute(moment: str | None) -> str:
    """Return a moment as the app writes it, shortened to what a table has room for."""
    return (moment or "")[:16].replace("T", " ")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
