"""`ops usage`: what keys used in a month."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ops.cli.options import Inventory, Json
from ops.cli.output import print_json, print_table, tell

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class By(StrEnum):
    """What to sum up by."""

    KEY = "key"
    DAY = "day"
    FEATURE = "feature"
    MODEL = "model"


@app.command()
def usage(
    inventory: Inventory,
    month: Annotated[str, typer.Option(help="Such as 2026-11; default: this one, UTC.")] = "",
    key: Annotated[str, typer.Option(help="Only this key's.")] = "",
    by: Annotated[By, typer.Option(help="What to sum up by.")] = By.KEY,
    as_json: Json = False,
) -> None:
    """Show what keys used: requests, tokens, engine seconds.

    Engine seconds are wall clock of the engines' streams, which share a GPU.

    Example: ops usage -i inventories/example --month 2026-11 --by feature
    """
    from ops.agent.command import agent_app
    from ops.agent.host import ask_json
    from ops.agent.usage import COUNTS, sum_up
    from ops.fleet import load

    rows = ask_json(load(inventory), agent_app("usage", month=month, key=key, json=True), say=tell)
    sums = sum_up(rows, by.value)
    if as_json:
        print_json({"by": by.value, "usage": sums})
        return
    columns = {by.value: by.value, "requests": "requests", "prompt_tokens": "prompt tokens",
               "completion_tokens": "answer tokens", "total_tokens": "tokens",
               "engine_seconds": "engine s"}  # fmt: skip
    print_table(sums, columns, right=frozenset({*COUNTS, "total_tokens"}))
    if not sums:
        tell("nothing was used")
