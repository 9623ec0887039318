"""The catalogue: which packages exist in which state, read from catalogue/*.yml."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ops.lab.mirror.package import RELATIONS, Package

FOLDER = Path(__file__).with_name("catalogue")
UPSTREAM = re.compile(r"(?:\d+:)?(.*?)(?:-[^-]*)?$")  # a version without epoch and revision
Item = dict[str, Any]


@dataclass(frozen=True)
class Repository:
    """One repository.

    Attributes:
        path: Its path below a state.
        key: Owner of the key that signs it.
        label: Its label and origin.
        suites: Its suites; none makes it flat.
        components: Its components, where it has suites.
        values: What it adds to the values of its packages.
    """

    path: str
    key: str
    label: str
    suites: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    values: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Damage:
    """A state that shows another one's indexes over a pool that does not match them.

    Attributes:
        indexes_of: That other state.
        stale: Names of packages whose files are not what the index says.
        missing: Patterns `name=version` of packages whose files are gone.
    """

    indexes_of: str
    stale: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """All of it.

    Attributes:
        states: Dates of the whole states.
        damaged: The damaged ones.
        repositories: By path.
        packages: Every package of every state.
        contents: What lies in packages (catalogue/contents.yml).
    """

    states: Mapping[str, datetime.date]
    damaged: Mapping[str, Damage]
    repositories: Mapping[str, Repository]
    packages: tuple[Package, ...]
    contents: Mapping[str, Any]

    @property
    def state_names(self) -> list[str]:
        """Every state that a lab's mirror can be in."""
        return [*self.states, *self.damaged]


@cache
def load() -> Catalogue:
    """Read the catalogue."""
    base = _read("sets")
    states = dict(base["states"])
    repositories = {
        path: Repository(path, **_tuples(entry)) for path, entry in base["repositories"].items()
    }
    packages: list[Package] = []
    for name in sorted(path.stem for path in FOLDER.glob("*.yml")):
        content = _read(name)
        for entry, path in itertools.product(
            content.get("packages", ()), content.get("repositories", ())
        ):
            if name != "sets":
                packages += _expand(entry, repositories[path], base["sets"], frozenset(states))
    return Catalogue(
        states=states,
        damaged={name: Damage(**_tuples(entry)) for name, entry in base["damaged"].items()},
        repositories=repositories,
        packages=tuple(packages),
        contents=_read("contents"),
    )


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yml").read_text())
    return content


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}


def _expand(
    entry: Item, repository: Repository, sets: Mapping[str, list[Item]], states: frozenset[str]
) -> Iterator[Package]:
    """One package for each combination of the items that an entry is made for."""
    lists = [list(_items(named, sets)) for named in entry.get("each", ())]
    for combination in itertools.product(*lists):
        values: Item = dict(repository.values or {})
        having = states & frozenset(entry.get("states", states))
        for item in combination:
            having &= frozenset(item.get("states", states))
            values |= item
        if having and values.get("flavour", "") in ("", *values.get("flavours", ())):
            yield _package(entry, repository, having, values)


def _items(named: str | list[str | Item], sets: Mapping[str, list[Item]]) -> Iterator[Item]:
    for member in [named] if isinstance(named, str) else named:
        yield from sets[member] if isinstance(member, str) else [member]


def _package(entry: Item, repository: Repository, states: frozenset[str], values: Item) -> Package:
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    version = entry["version"].format_map(texts)
    suite = entry.get("suite", texts.get("suite", ""))
    return Package(
        repository=repository.path,
        name=entry["package"].format_map(texts),
        version=version,
        suites=frozenset([suite]) if repository.suites else frozenset(),
        component=entry.get("component", "main"),
        states=states,
        relations={
            key: ", ".join(" ".join(text.format_map(texts).split()) for text in entry[key])
            for key in RELATIONS
            if key in entry
        },
        contains=tuple(entry.get("contains", ())),
        values=texts | {"version": version, "upstream": UPSTREAM.sub(r"\1", version)},
    )
