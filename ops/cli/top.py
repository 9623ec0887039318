"""`ops top`: the fleet live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.options import Inventory

if TYPE_CHECKING:
    from rich.console import Console

    from ops.fleet import Fleet
    from ops.live.rates import History
    from ops.live.watch import Look, Watch

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def top(
    inventory: Inventory,
    every: Annotated[
        float, typer.Option("--every", min=0.5, max=600, help="Seconds between refreshes.")
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, print what happened between, and end.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, a line per refresh, until Ctrl-C.")
    ] = False,
) -> None:
    """Show live what engines, the app and operations do; q or Ctrl-C ends it.

    Without a terminal it prints once. Exit status as of ops status for what
    was printed once, else 0.

    Example: ops top -i inventories/example --every 5
    """
    import sys

    from rich.console import Console

    from ops.fleet import load
    from ops.live.watch import watching

    fleet = load(inventory)
    console = Console(highlight=False)
    with watching(fleet, traffic=True, every=every) as watch:
        try:
            if as_json:
                look = tell_json(watch, every, once=once)
            elif once or not sys.stdout.isatty() or console.is_dumb_terminal:
                look = print_once(watch, every, console)
            else:
                show(fleet, watch, every, console)
                return
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            silence()
            return
    raise typer.Exit(0 if look.well else 1)


def looks(watch: Watch, every: float, history: History) -> Look:
    """Look twice, so that there is something to compare."""
    import time

    history.add(list(watch.refresh().hosts))
    time.sleep(every)
    look = watch.refresh()
    history.add(list(look.hosts))
    return look


def print_once(watch: Watch, every: float, console: Console) -> Look:
    """Print one picture."""
    from ops.live.drawing import live_view
    from ops.live.rates import History

    history = History()
    look = looks(watch, every, history)
    console.print(live_view(look, history, console.width))
    return look


def tell_json(watch: Watch, every: float, *, once: bool) -> Look:
    """Print a line per refresh; the first one already has rates."""
    import json
    import time

    from ops.live.rates import History
    from ops.live.records import record

    history = History()
    look = looks(watch, every, history)
    while True:
        typer.echo(json.dumps(record(look, history)))
        if once:
            return look
        time.sleep(every)
        look = watch.refresh(patience(every))
        history.add(list(look.hosts))


def show(fleet: Fleet, watch: Watch, every: float, console: Console) -> None:
    """Draw again and again until q."""
    import signal
    from datetime import UTC, datetime

    from rich.live import Live
    from rich.text import Text

    from ops.live.drawing import Cropped, live_view
    from ops.live.keys import Keys
    from ops.live.rates import History

    history = History()
    for number in (signal.SIGTERM, signal.SIGHUP):  # the terminal is to be left as it was
        signal.signal(number, signal.default_int_handler)
    with (
        Keys() as keys,
        Live(Text("asking every host"), console=console, screen=True, auto_refresh=False) as live,
    ):
        live.refresh()
        look = watch.refresh()
        while True:
            history.add(list(look.hosts))
            now = f"{datetime.fromtimestamp(look.at, UTC):%H:%M:%S} UTC"
            head = f"{fleet.domain}  {now}  every {every:g} s  q ends"
            live.update(Cropped(live_view(look, history, console.width, head)), refresh=True)
            if keys.pressed(every, "qQ"):
                return
            look = watch.refresh(patience(every))


def patience(every: float) -> float:
    """How long a refresh waits for a host that answered the last time, in seconds."""
    return max(3.0, every)


def silence() -> None:
    """Let Python's own last flush find no broken pipe."""
    import os
    import sys

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
