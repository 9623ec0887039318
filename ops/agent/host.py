"""Ask the agent app on the first of its hosts that answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from ops.errors import InputError, OpsError, RemoteError, UnreachableError
from ops.fleet.model import Fleet, Host
from ops.remote import connect
from ops.remote.stream import Finished, execute

Say = Callable[[str], None]

_OWN_NAMES = (
    (r"\bagent-app knowledge\b", "ops kb"),
    (r"\bagent-app (keys|usage|audit)\b", r"ops \1"),
)


def ask(
    fleet: Fleet,
    command: str,
    *,
    say: Say = lambda _: None,
    accept: frozenset[int] = frozenset({0}),
    source: Callable[[], Iterable[bytes]] = tuple,
    sink: Callable[[bytes], object] | None = None,
) -> Finished:
    """Run a command line of the app on the first agent host that can be reached.

    Only a host that cannot be reached is passed over: what has begun anywhere is not begun twice.

    Args:
        fleet: The inventory.
        command: From `ops.agent.command`.
        say: Told of hosts that were passed over.
        accept: Exit statuses that are answers.
        source: Makes the command's standard input.
        sink: Takes its standard output.

    Raises:
        UnreachableError: No agent host answers.
        OpsError: The app says what is wrong; its place and cure come along.
    """
    fleet.first("agent")  # or says that there is none
    unreachable: UnreachableError | None = None
    for host in fleet.group("agent"):
        with connect(fleet, host) as connection:
            try:
                done = execute(connection, host, command, source=source(), sink=sink)
            except UnreachableError as error:
                unreachable = unreachable or error
                say(f"{error.message}; asking the next host")
                continue
        if done.status not in accept:
            raise explain(host, command, done)
        return done
    assert unreachable is not None
    raise unreachable


def ask_json(fleet: Fleet, command: str, **settings: Any) -> Any:
    """Run a command line that prints JSON and return what it says.

    Raises:
        RemoteError: What it printed is no JSON.
    """
    done = ask(fleet, command, **settings)
    try:
        return json.loads(done.output)
    except ValueError as error:
        raise RemoteError(
            "the agent app's answer is no JSON",
            place=_shown(command),
            cure="bring the app to this version: ops provision --tags app",
        ) from error


def explain(host: Host, command: str, done: Finished) -> OpsError:
    """Return the error that a failed command told of, in its own words.

    The app's message has its cure behind it; what it says of `agent-app` is said of `ops`.
    """
    place = f"{host.name}: {_shown(command)}"
    if done.status == 127 or "No such command" in done.complaint:
        return RemoteError(
            f"{host.name} has no such command: its agent-app is missing or older than this ops",
            place=place,
            cure="bring the host to the inventory: ops provision --tags app",
        )
    told = [line for line in done.complaint.splitlines() if line.startswith("agent-app: ")]
    if not told:
        said = " ".join(done.complaint.split())[-1000:] or "it says nothing"
        return RemoteError(
            f"agent-app on {host.name} failed with status {done.status}: {said}",
            place=place,
            cure=f"look there: ssh {host.address} journalctl -n 50",
        )
    message, _, cure = told[-1].removeprefix("agent-app: ").partition(". Cure: ")
    for pattern, ours in _OWN_NAMES:
        cure = re.sub(pattern, ours, cure)
    kind = InputError if done.status == 2 else RemoteError
    return kind(message, place=place, cure=cure)


def _shown(command: str) -> str:
    """Return the line that matters of a command: a script's last."""
    return command.splitlines()[-1][:200]
