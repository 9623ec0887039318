"""The fleet's edges, acted on over SSH: which instances of the app get requests and how they do."""

from __future__ import annotations

import json
from importlib.resources import files
from shlex import quote
from typing import Any

from ops.fleet.model import Fleet, Host
from ops.models.budget import Sample
from ops.remote import connect, run

PROGRAM = files("ops.engine").joinpath("switch_program.py")


def take_out(fleet: Fleet, backend: str) -> None:
    """Have no edge send new requests to an instance; what is under way goes on.

    Raises:
        RemoteError: An edge does not answer, or knows no such instance.
    """
    for host in fleet.group("edge"):
        _call(fleet, host, "set_out", backend=backend, out=True)


def put_in(fleet: Fleet, backend: str) -> None:
    """Have every edge send requests to an instance again.

    Raises:
        RemoteError: As `take_out`.
    """
    for host in fleet.group("edge"):
        _call(fleet, host, "set_out", backend=backend, out=False)


class EdgeLog:
    """What an instance did, and the others beside it, since this was made.

    Args:
        fleet: The fleet.
        backend: The instance that is watched.
    """

    def __init__(self, fleet: Fleet, backend: str) -> None:
        self._fleet = fleet
        self._backend = backend
        self._places = {host.name: self._read(host, -1)["offset"] for host in fleet.group("edge")}
        self.watched = Sample()
        self.others = Sample()

    def read(self) -> None:
        """Take in what came since."""
        for host in self._fleet.group("edge"):
            found = self._read(host, self._places[host.name])
            self._places[host.name] = found["offset"]
            self.watched = self.watched.plus(found["watched"])
            self.others = self.others.plus(found["others"])

    def _read(self, host: Host, offset: int) -> dict[str, Any]:
        values = {"backend": self._backend, "offset": offset}
        return _call(self._fleet, host, "read_edge_log", **values)


def _call(fleet: Fleet, host: Host, verb: str, **values: Any) -> dict[str, Any]:
    program = PROGRAM.read_text(encoding="utf-8")
    command = f"python3 -c {quote(program)} {verb} {quote(json.dumps(values))}"
    with connect(fleet, host) as connection:
        return dict(json.loads(run(connection, host, command)))
