"""What a report is about: a period, hosts, prices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ops.dashboards.cost import PRICES
from ops.dashboards.expand import SCRAPE_SECONDS, period_values
from ops.errors import InputError

SPAN = re.compile(r"(\d+)(m|h|d|w)")
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
POINTS = 240
"""Of a graph: more than its width shows is more than a reader sees."""
SHORTEST, LONGEST = 300, 366 * 86400


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        end: Seconds since the epoch.
        seconds: Length of the period.
        hosts: Names; none are all.
        prices: Numbers of the cost section by name.
    """

    end: float
    seconds: float
    hosts: tuple[str, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict)

    @property
    def start(self) -> float:
        """Seconds since the epoch."""
        return self.end - self.seconds

    @property
    def step(self) -> float:
        """Seconds between two points, whole scrapes."""
        scrapes = max(1, round(self.seconds / POINTS / SCRAPE_SECONDS))
        return float(scrapes * SCRAPE_SECONDS)

    @property
    def values(self) -> dict[str, str]:
        """Values of the dashboards' variables."""
        prices = {price.name: price.default for price in PRICES} | dict(self.prices)
        common = period_values(self.hosts, self.seconds, self.step)
        return common | {name: f"{value:g}" for name, value in prices.items()}


def parse_since(text: str) -> float:
    """Return seconds of `90m`, `24h`, `7d` or `2w`.

    Raises:
        InputError: It is none, or out of bounds.
    """
    found = SPAN.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text!r} is no period", place="--since", cure="write 90m, 24h, 7d or 2w")
    seconds = float(int(found.group(1)) * UNITS[found.group(2)])
    if not SHORTEST <= seconds <= LONGEST:
        raise InputError(
            f"a report is of 5 minutes to 366 days, and {text} is not",
            place="--since",
            cure="choose a period between them",
        )
    return seconds


def parse_prices(words: Iterable[str]) -> dict[str, float]:
    """Return prices of `name=number` words.

    Raises:
        InputError: There is no such price, or it is no number above 0.
    """
    known = {price.name for price in PRICES}
    found: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if name not in known or not 0 < value < float("inf"):
            raise InputError(
                f"{word!r} sets no price",
                place="--price",
                cure=f"write name=number, above 0, with one of {', '.join(sorted(known))}",
            )
        found[name] = value
    return found
