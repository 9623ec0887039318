"""Read what a person wants silenced, and for how long. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

from ops.alerts.alertmanager import Matcher, Silence
from ops.errors import InputError

MATCHER = re.compile(r'([a-zA-Z_]\w*)(=~|!~|!=|=)"?([^"]*)"?')
NAME = re.compile(r"[A-Za-z_]\w*")
DURATION = re.compile(r"(\d+)([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST = timedelta(weeks=8)
"""A silence that outlives those who made it hides what it was not made for."""


def parse_matchers(words: Sequence[str]) -> tuple[Matcher, ...]:
    """Read alerts' names and matchers such as `host=node1` or `instance=~redis.*`.

    Raises:
        InputError: One is neither, or two names are given.
    """
    found = []
    for word in words:
        if match := MATCHER.fullmatch(word):
            name, sign, value = match.groups()
            found.append(Matcher(name, value, "~" in sign, not sign.startswith("!")))
        elif NAME.fullmatch(word):
            found.append(Matcher("alertname", word))
        else:
            raise InputError(
                f"{word!r} is neither an alert's name nor a matcher",
                place="ops alerts silence",
                cure="ops alerts silence GpuHot host=node1 --for 2h --why 'fan on order'",
            )
    if [m.name for m in found if not m.regex].count("alertname") > 1:
        raise InputError(
            "a silence is for one alert, or for those that a pattern matches",
            place="ops alerts silence " + " ".join(words),
            cure="make one silence each, or write alertname=~'One|Another'",
        )
    return tuple(found)


def parse_duration(text: str) -> timedelta:
    """Read a duration such as 30m, 2h or 1d12h.

    Raises:
        InputError: It is none, or longer than eight weeks.
    """
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InputError(
            f"{text!r} is no duration", place="--for", cure="write 30m, 2h, 1d or 1d12h"
        )
    found = timedelta(seconds=sum(int(number) * SECONDS[unit] for number, unit in parts))
    if not timedelta(0) < found <= LONGEST:
        raise InputError(
            f"a silence of {text} is longer than eight weeks, or none",
            place="--for",
            cure="name a shorter one and make it anew when it ends; or prometheus_alerts_off",
        )
    return found


def chosen(silences: Sequence[Silence], word: str) -> list[Silence]:
    """Find the silences that a person means by an id, its beginning, or an alert's name.

    Raises:
        InputError: There is none.
    """
    found = [s for s in silences if s.name == word or (len(word) >= 4 and s.id.startswith(word))]
    if not found:
        known = ", ".join(f"{s.id[:8]} ({' '.join(map(str, s.matchers))})" for s in silences)
        raise InputError(
            f"no silence in force is {word!r}",
            place=f"in force: {known or 'none'}",
            cure="name an alert, or the first letters of an id",
        )
    return found
