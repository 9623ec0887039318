"""The fleet's keeper: the one host that holds the lock and the journals of all operations.

It is the first host of group `data`: without that one the fleet serves nothing anyway. The lock is
held by a process there that lives as long as our connection, so that an operator's death frees it
at once and a cut line within a minute; the journal is written by that same process, so that nobody
writes who does not hold the lock.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from shlex import quote
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ops.errors import OpsError, RemoteError
from ops.fleet.model import Fleet, Host
from ops.operations.journal import Operation
from ops.operations.plan import Plan
from ops.remote import connect, run

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel

FOLDER = "/var/lib/rackhand/operations"
PING_SECONDS = 10.0
ANSWER_SECONDS = 30.0
PROGRAM = files("ops.operations").joinpath("keeper_program.py")


class LockedError(OpsError):
    """Another operator works on the fleet, or an operation was left unfinished."""


class LockLostError(OpsError):
    """The line to the keeper broke: somebody else may hold the lock by now.

    Attributes:
        operation: The id of the operation whose journal ends there.
    """

    operation: str = ""


def keeper(fleet: Fleet) -> Host:
    """The host that keeps lock and journals."""
    return fleet.first("data")


def read(fleet: Fleet, name: str) -> Operation:
    """Read one operation.

    Raises:
        OpsError: There is none of that name.
        RemoteError: The keeper cannot be reached.
    """
    record = _ask(fleet, "read", name)
    if record is None:
        raise OpsError(f"there is no operation {name}", cure="ops history lists them")
    return Operation.from_record(record)


def summaries(fleet: Fleet) -> list[dict[str, Any]]:
    """Every operation with its first and last entry, oldest first."""
    found: list[dict[str, Any]] = _ask(fleet, "list")
    return found


def _ask(fleet: Fleet, *words: str) -> Any:
    host = keeper(fleet)
    with connect(fleet, host) as connection:
        return json.loads(run(connection, host, _command(*words)))


def _command(*words: str) -> str:
    program = PROGRAM.read_text(encoding="utf-8")
    return " ".join(["python3", "-c", *map(quote, (program, FOLDER, *words))])


class Hold:
    """The lock, held, and the journal of one operation.

    Args:
        fleet: The fleet.
        name: The operation's id.
        owner: `who`, `machine` and `why`, told to whoever is refused meanwhile.
    """

    def __init__(self, fleet: Fleet, name: str, owner: Mapping[str, str]) -> None:
        self._fleet = fleet
        self._host = keeper(fleet)
        self._name = name
        self._owner = {"id": name, **owner}
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._waiting = b""
        self._lost = ""

    def __enter__(self) -> Hold:
        """Take the lock.

        Raises:
            LockedError: It is not to be had; the message names who has it, or what is unfinished.
            RemoteError: The keeper cannot be reached.
        """
        self._connection = connect(self._fleet, self._host)
        run(self._connection, self._host, "true")  # opens it, with errors for people
        channel = self._connection.client.get_transport().open_session(timeout=ANSWER_SECONDS)
        channel.settimeout(ANSWER_SECONDS)
        command = _command("hold", json.dumps(self._owner))
        if self._host.become and self._host.user != "root":
            command = f"sudo -n sh -c {quote(command)}"
        channel.exec_command(command)
        self._channel = channel
        answer = self._receive()
        if "refused" in answer:
            self.__exit__(None, None, None)
            raise _refusal(answer)
        threading.Thread(target=self._ping, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Let go of the lock."""
        self._over.set()
        if self._connection is not None:
            self._connection.close()

    def begin(self, plan: Plan) -> None:
        """Store the plan; from now on the operation is open until `end`."""
        about = {"verb": plan.verb, "subject": plan.subject, **self._owner}
        self._request({"begin": plan.as_record(), "open": about})

    def append(self, event: str, **fields: Any) -> None:
        """Add an entry to the journal; it is on the keeper's disk when this returns.

        The event `end` closes the operation with the same stroke: another may begin.

        Raises:
            LockLostError: The keeper did not take it.
        """
        who = f"{self._owner['who']}@{self._owner['machine']}"
        self._request({"append": {"event": event, "by": who, **fields}})

    def _ping(self) -> None:
        while not self._over.wait(PING_SECONDS):
            try:
                self._request({"ping": True})
            except LockLostError:
                return

    def _request(self, request: Mapping[str, Any]) -> None:
        with self._turn:
            if not self._lost:
                try:
                    assert self._channel is not None
                    self._channel.sendall(json.dumps(request).encode() + b"\n")
                    self._receive()
                    return
                except (OSError, EOFError, RemoteError) as error:
                    self._lost = str(error) or type(error).__name__
            lost = LockLostError(
                f"the line to {self._host.name}, which keeps the journal, broke: {self._lost}",
                place=f"operation {self._name}",
                cure=f"ops resume {self._name}, or ops abort {self._name}",
            )
            lost.operation = self._name
            raise lost

    def _receive(self) -> dict[str, Any]:
        assert self._channel is not None
        while b"\n" not in self._waiting:
            data = self._channel.recv(1 << 16)
            if not data:
                words = self._channel.recv_stderr(1 << 16).decode(errors="replace").strip()
                raise RemoteError(
                    f"the keeper's process on {self._host.name} ended: {words[-2000:]}",
                    place=f"{self._host.name}:{FOLDER}",
                )
            self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _refusal(answer: Mapping[str, Any]) -> LockedError:
    about = answer.get("operation") or answer.get("owner") or {}
    who = f"{about.get('who', 'somebody')}@{about.get('machine', '?')}"
    name, why = about.get("id", "?"), about.get("why", "")
    if answer["refused"] == "held":
        since = datetime.fromtimestamp(about.get("since", 0.0), UTC)
        return LockedError(
            f"{who} is at work on the fleet since {since:%H:%M:%S} UTC: {name}"
            + (f" ({why})" if why else ""),
            place=f"operation {name}",
            cure="wait for it, or look: ops show " + name,
        )
    return LockedError(
        f"{who} left an operation unfinished: {name}" + (f" ({why})" if why else ""),
        place=f"operation {name}",
        cure=f"ops resume {name}, or ops abort {name}",
    )
