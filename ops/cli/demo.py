"""`ops demo`: what `make demo` runs."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def demo(name: Annotated[str, typer.Option("--name", "-n", help="The lab.")] = "lab") -> None:
    """Boot a lab host, bring the stack up on it and stream one real answer.

    A second run changes nothing and is quick. End it with: ops lab down
    """
    from rich.console import Console

    from ops.demo.run import run_demo

    run_demo(Console(highlight=False), name)
