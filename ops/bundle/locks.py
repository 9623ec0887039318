"""Hashed locks of Python packages: what they pin, for a Python of a host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ops.bundle.distributions import Distribution
from ops.errors import InputError
from ops.places import ROOT

ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\\n]+?))?"
    r"(?P<hashes>(?:\s*\\\n\s+--hash=sha256:[0-9a-f]{64})*)[^\S\n]*\n"
    r"(?P<via>(?:[^\S\n]+#.*\n)*)",
    re.MULTILINE,
)
HASH = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """A package in one version, and the files that it may come as.

    Attributes:
        marker: Where it is needed (PEP 508); empty for everywhere.
        via: What needs it, as the lock's comments say.
    """

    name: str
    version: str
    marker: str
    hashes: frozenset[str]
    via: tuple[str, ...]
    text: str


def read(lock: Path) -> list[Pin]:
    """The pins of a lock.

    Raises:
        InputError: A line is neither a hashed pin nor a comment.
    """
    return parse(lock.read_text(), str(lock))


def parse(text: str, place: str) -> list[Pin]:
    """The pins of a lock's text; as `read`."""
    pins, rest = [], text if text.endswith("\n") else f"{text}\n"
    for match in ENTRY.finditer(rest):
        hashes = frozenset(HASH.findall(match["hashes"]))
        if not hashes:
            raise InputError(
                f"{match['name']} is pinned without a hash", place=place, cure="make lock"
            )
        via = [line.strip(" #") for line in match["via"].splitlines()]
        if via and via[0].startswith("via "):
            via[0] = via[0].removeprefix("via ")
        pins.append(
            Pin(
                normal(match["name"]),
                match["version"],
                (match["marker"] or "").strip(),
                hashes,
                tuple(each for each in via if each and each != "via"),
                match[0],
            )
        )
    left = [x for x in ENTRY.sub("", rest).splitlines() if x.strip() and not x.startswith("#")]
    if left:
        raise InputError(f"This is no hashed pin: {left[0]!r}", place=place, cure="make lock")
    return pins


def normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(pins: list[Pin], distribution: Distribution) -> list[Pin]:
    """The pins whose markers hold for a distribution's Python on x86-64."""
    from packaging.markers import Marker

    version = "{}.{}".format(*distribution.python)
    environment = {
        "implementation_name": "cpython",
        "implementation_version": f"{version}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{version}.0",
        "python_version": version,
        "sys_platform": "linux",
    }
    return [pin for pin in pins if not pin.marker or Marker(pin.marker).evaluate(environment)]


def closure(pins: list[Pin], roots: set[str]) -> list[Pin]:
    """The part of a lock that some packages need, by its `via` comments."""
    wanted = set(roots)
    while True:
        more = {pin.name for pin in pins if wanted & set(pin.via)} - wanted
        if not more:
            return [pin for pin in pins if pin.name in wanted]
        wanted |= more


def all_locks() -> list[Path]:
    """Every lock that something of ours is installed from; benchmarks' competitors are not ours."""
    folders = ("requirements", "agent_app", "ops", "stand_in_engine", "roles")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.lock"))
