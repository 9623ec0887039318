"""Put values in the place of a query's dashboard variables, as Grafana does."""

from __future__ import annotations

import re
from collections.abc import Mapping

VARIABLE = re.compile(r"\$(__[a-z_]+|[a-z]\w*)")
ALL = ".*"


def variables_of(expr: str) -> set[str]:
    """Return the names of the variables that an expression has."""
    return set(VARIABLE.findall(expr))


def expand(expr: str, values: Mapping[str, str]) -> str:
    """Return the expression with values in place of its variables.

    Args:
        expr: PromQL with `$name` in it.
        values: By name.

    Raises:
        KeyError: It has a variable without a value.
    """
    return VARIABLE.sub(lambda found: values[found.group(1)], expr)


def period_values(hosts: tuple[str, ...], seconds: float, step: float) -> dict[str, str]:
    """Return values of the variables that every dashboard has.

    Args:
        hosts: Names; none are all.
        seconds: Length of the period.
        step: Seconds between two points of a graph.
    """
    pattern = "|".join(re.escape(name).replace("\\", "\\\\") for name in hosts) or ALL
    # As Grafana: never shorter than four scrapes, so that a lost one leaves no gap.
    window = max(round(step) + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)
    return {"host": pattern, "__range": f"{round(seconds)}s", "__rate_interval": f"{window}s"}


SCRAPE_SECONDS = 15
"""Role prometheus' default; a longer interval needs a longer window."""
