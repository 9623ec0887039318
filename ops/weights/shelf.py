"""What lies on each host: revisions of weights, environments of vLLM, and room for more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from shlex import quote
from typing import Any

from ops.errors import OpsError, RemoteError
from ops.fleet.model import Fleet, Host
from ops.remote import connect, pipe
from ops.weights.job import LOADER, make_job
from ops.weights.manifest import STAGING

MOST_AT_ONCE = 16
MODELS, ENVIRONMENTS = "/srv/models", "/opt/vllm"


@dataclass(frozen=True)
class Revision:
    """A folder of weights, `whole` or on its way in or out; bytes, seconds since 1970."""

    name: str
    whole: bool
    size: int
    at: float
    digest: str = ""


@dataclass(frozen=True)
class Environment:
    """An environment of vLLM; `ours` unless it is mounted or read-only."""

    name: str
    complete: bool
    at: float
    ours: bool = True
    size: int = 0


@dataclass(frozen=True)
class Slot:
    """What a slot's settings name, and whether its engine runs."""

    name: str
    environment: str
    path: str
    runs: bool


@dataclass(frozen=True)
class Shelf:
    """One host's.

    Attributes:
        host: Its name.
        now: Its clock.
        free: Bytes on the file system of the weights.
        models: Revisions by model.
        environments: Of vLLM.
        fact: What it says that its models serve.
        slots: Of its engines.
    """

    host: str
    now: float = 0.0
    free: int = 0
    models: Mapping[str, Sequence[Revision]] = field(default_factory=dict)
    environments: Sequence[Environment] = ()
    fact: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    slots: Sequence[Slot] = ()

    def find(self, model: str, revision: str) -> Revision | None:
        """A revision that is whole."""
        found = self.models.get(model, ())
        return next((r for r in found if r.whole and r.name == revision), None)

    def staged_bytes(self, model: str, revision: str) -> int:
        """What an earlier try has brought of a revision."""
        found = self.models.get(model, ())
        return sum(r.size for r in found if r.name == revision + STAGING)


def path_of(model: str, revision: str) -> str:
    """Where a revision lies."""
    return f"{MODELS}/{model}/{revision}"


def call(fleet: Fleet, host: Host, verb: str, **values: Any) -> dict[str, Any]:
    """Have the host's program do something.

    Raises:
        RemoteError: It cannot be reached, or the program failed.
    """
    said: list[str] = []
    job = make_job("shelf_program.py", {"verb": verb, **values})
    with connect(fleet, host) as connection:
        status = pipe(connection, host, f"python3 -c {quote(LOADER)}", job, said.append)
    if status or not said:
        raise RemoteError(f"{host.name} does not tell its weights: {' '.join(said[-3:])}",
                          place=host.name)  # fmt: skip
    found: dict[str, Any] = json.loads(said[-1])
    return found


def ask(fleet: Fleet, host: Host, *, sizes: bool = False) -> Shelf:
    """Ask one host.

    Raises:
        RemoteError: It does not answer.
    """
    return read_shelf(host.name, call(fleet, host, "survey", sizes=sizes))


def survey(fleet: Fleet, hosts: Sequence[Host], *, sizes: bool = False) -> list[Shelf]:
    """Ask many at once.

    Raises:
        RemoteError: One does not answer.
    """
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        return list(pool.map(partial(ask, fleet, sizes=sizes), hosts))


def survey_those_up(fleet: Fleet, hosts: Sequence[Host]) -> list[Shelf]:
    """Ask many at once; who does not answer has nothing to give."""

    def try_one(host: Host) -> Shelf | None:
        try:
            return ask(fleet, host)
        except OpsError:
            return None

    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        return [shelf for shelf in pool.map(try_one, hosts) if shelf is not None]


def read_shelf(host: str, found: Mapping[str, Any]) -> Shelf:
    """Turn what the host's program says into a Shelf."""
    return Shelf(
        host=host,
        now=found["now"],
        free=found["free"]["models"],
        models={
            model: tuple(Revision(**entry) for entry in entries)
            for model, entries in found["models"].items()
        },
        environments=tuple(Environment(**entry) for entry in found["environments"]),
        fact=found["fact"],
        slots=tuple(Slot(**entry) for entry in found["slots"]),
    )
