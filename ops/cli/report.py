"""`ops report`: one page about a period of the fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.options import Inventory, Json, Limit, parse_limit
from ops.cli.output import print_json, tell

if TYPE_CHECKING:
    from ops.fleet import Fleet
    from ops.report.answers import Answers

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
DEFAULT_OUT = Path("report.html")


@app.command()
def report(
    inventory: Inventory,
    since: Annotated[str, typer.Option(help="Period until now: 90m, 24h, 7d, 2w.")] = "24h",
    out: Annotated[
        Path | None, typer.Option(help="The page's file; report.html where --json is not given.")
    ] = None,
    limit: Limit = "",
    price: Annotated[
        list[str] | None,
        typer.Option(help="Of the cost section, name=number; again for each: price_kwh=0.25"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one page with plots about a period, from the fleet's Prometheus.

    The page needs nothing beside itself: mail it, print it. It changes nothing on the fleet.
    Exit status 0 where it was written, also of a fleet that is not well.

    Example: ops report -i inventories/example --since 7d --out week.html
    """
    import time

    from ops.fleet import load
    from ops.monitoring import prometheus
    from ops.report.answers import collect, count
    from ops.report.numbers import document
    from ops.report.question import Question, parse_prices, parse_since

    seconds, prices = parse_since(since), parse_prices(price or ())
    page = out or (None if as_json else DEFAULT_OUT)
    if page is not None:
        require_folder(page)
    fleet = load(inventory)
    question = Question(time.time(), seconds, chosen(fleet, limit), prices)
    with prometheus(fleet) as source, progress("asking Prometheus") as begin:
        answers = collect(source, question, begin(count()))
    if page is not None:
        write(page, answers, fleet)
    if as_json:
        print_json(document(answers))


def chosen(fleet: Fleet, limit: str) -> tuple[str, ...]:
    """Return the hosts that a report is limited to.

    Raises:
        InputError: One is not in the inventory.
    """
    from ops.errors import InputError

    names = parse_limit(limit)
    known = {host.name for host in fleet.hosts}
    for name in names:
        if name not in known:
            raise InputError(
                f"{name} is no host of the inventory",
                place="--limit",
                cure=f"name some of {', '.join(sorted(known))}",
            )
    return names


def require_folder(page: Path) -> None:
    """Say before the work that the page could not be written.

    Raises:
        InputError: Its folder is not there, or it is a folder itself.
    """
    from ops.errors import InputError

    if page.is_dir() or not page.parent.is_dir():
        raise InputError(
            f"{page} cannot be written: "
            + ("it is a folder" if page.is_dir() else f"there is no folder {page.parent}"),
            place="--out",
            cure="name a file in a folder that exists",
        )


def write(page: Path, answers: Answers, fleet: Fleet) -> None:
    """Write the page, whole or not at all."""
    import os
    import tempfile
    from datetime import datetime

    from ops.report.page import graph_count, write_page

    zone = datetime.now().astimezone().tzinfo
    assert zone is not None
    with progress("drawing") as begin:
        text = write_page(answers, fleet.domain, zone, begin(graph_count(answers)))
    handle, name = tempfile.mkstemp(dir=page.parent, prefix=f".{page.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(name, 0o644)  # noqa: PTH101
    os.replace(name, page)  # noqa: PTH105
    tell(f"{page} is written, {page.stat().st_size / 1024:,.0f} KiB")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """Show a bar on standard error, where that is a terminal.

    Yields:
        Begins: of how many steps, and returns what to call after each.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:

        def begin(total: int) -> Callable[[], None]:
            task = bar.add_task(what, total=total)
            return lambda: bar.advance(task)

        yield begin
