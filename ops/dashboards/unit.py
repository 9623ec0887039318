"""Units of panels: Grafana's name of each, and how the report writes a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

NO_VALUE = "-"
STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
SPANS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True)
class Unit:
    """A unit.

    Attributes:
        grafana: Its name in Grafana (`@grafana/data`, valueFormats).
        write: A finite value as text for people.
        axis: What the report's axis says where the ticks' text does not.
        sizes: Of larger and smaller units, so that an axis is cut at round values of one.
    """

    grafana: str
    write: Callable[[float], str]
    axis: str = ""
    sizes: tuple[float, ...] = (1.0,)

    def text(self, value: float | None) -> str:
        """Write a value; a dash where there is none."""
        if value is None or not math.isfinite(value):
            return NO_VALUE
        return self.write(value)


def number(value: float) -> str:
    """Write a number in three digits or so: 0.12, 3.4, 512, 12.3k."""
    for size, letter in STEPS:
        if abs(value) >= size:
            return f"{_short(value / size)}{letter}"
    return _short(value)


def _short(value: float) -> str:
    if value == int(value) and abs(value) < 1000:
        return f"{int(value)}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _share(value: float) -> str:
    percent = value * 100
    if percent and abs(percent) < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:  # not quite all must not read as all
        return "> 99.99 %"
    return f"{_short(percent)} %"


def _bytes(value: float) -> str:
    for size, name in BINARY:
        if abs(value) >= size:
            return f"{_short(value / size)} {name}"
    return f"{_short(value)} B"


def _seconds(value: float) -> str:
    if 0 < abs(value) < 0.001:
        return f"{_short(value * 1e6)} µs"
    if 0 < abs(value) < 1:
        return f"{_short(value * 1e3)} ms"
    for size, name in SPANS:
        if abs(value) >= size:
            return f"{_short(value / size)} {name}"
    return "0 s"


def _per_second(value: float) -> str:
    return f"{number(value)}/s"


def _suffix(text: str) -> Callable[[float], str]:
    return lambda value: f"{number(value)} {text}"


def _si(text: str) -> Callable[[float], str]:
    """Write a multiple of a unit: 1.98 GHz."""

    def write(value: float) -> str:
        for size, letter in STEPS:
            if abs(value) >= size:
                return f"{_short(value / size)} {letter}{text}"
        return f"{_short(value)} {text}"

    return write


SHARE = Unit("percentunit", _share)
BINARY_SIZES = (*(float(size) for size, _ in BINARY), 1.0)
BYTES = Unit("bytes", _bytes, sizes=BINARY_SIZES)
BYTES_PER_SECOND = Unit("binBps", lambda value: f"{_bytes(value)}/s", sizes=BINARY_SIZES)
SECONDS = Unit("s", _seconds, sizes=(*(size for size, _ in SPANS), 1e-3, 1e-6))
DAYS = Unit("d", _suffix("d"), "days")
CELSIUS = Unit("celsius", _suffix("°C"))
WATTS = Unit("watt", _si("W"))
HERTZ = Unit("hertz", _si("Hz"))
COUNT = Unit("short", number)
REQUESTS_PER_SECOND = Unit("reqps", _per_second, "requests per second")
PER_SECOND = Unit("cps", _per_second)
KWH = Unit("kwatth", _suffix("kWh"))
HOURS = Unit("h", _suffix("h"), "hours")
MONEY = Unit("none", lambda value: f"{value:,.2f}", "in the currency of the prices")
UP = Unit("none", lambda value: "up" if value >= 1 else "down")
FREE = Unit("none", lambda value: "free" if value >= 1 else "slowed")
SERVES = Unit("none", lambda value: "in service" if value >= 1 else "drained")
ANSWERS = Unit("none", lambda value: "answers" if value >= 1 else "idle")
