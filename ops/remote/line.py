"""A program on a host that answers one JSON line per line, over a connection that stays open."""

from __future__ import annotations

import json
import time
from shlex import quote
from types import TracebackType
from typing import TYPE_CHECKING, Any

from paramiko.ssh_exception import SSHException

from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host
from ops.remote.connection import connect, unreachable

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel


class Line:
    """Starts the program as root; it ends when its input does.

    Args:
        fleet: The fleet.
        host: The host.
        command: For the host's shell; quote what is not yours.
        answer_seconds: How long an answer may take.
    """

    def __init__(self, fleet: Fleet, host: Host, command: str, answer_seconds: float) -> None:
        self._fleet = fleet
        self._host = host
        self._command = command
        self._seconds = answer_seconds
        self._waiting = b""
        self._connection: Connection | None = None
        self._channel: Channel | None = None

    def __enter__(self) -> Line:
        """Open it.

        Raises:
            RemoteError: The host cannot be reached.
        """
        host, command = self._host, self._command
        if host.become and host.user != "root":
            command = f"sudo -n sh -c {quote(command)}"
        self._connection = connect(self._fleet, host)
        try:
            self._connection.open()
            channel = self._connection.transport.open_session(timeout=self._seconds)
            channel.settimeout(self._seconds)
            channel.exec_command(command)
        except (SSHException, OSError, EOFError) as error:
            self.close()
            raise unreachable(host, error) from error
        self._channel = channel
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def ask(self, request: Any = None) -> Any:
        """Send a line, return the answer.

        Raises:
            RemoteError: The line broke, the program ended, or the answer did not come in time.
        """
        assert self._channel is not None
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(self._receive(time.monotonic() + self._seconds))
        except TimeoutError as error:
            raise RemoteError(
                f"{self._host.name} did not answer within {self._seconds:.0f} s",
                place=self._host.address,
            ) from error
        except (SSHException, OSError, EOFError) as error:
            raise RemoteError(
                f"the line to {self._host.name} broke: {error}", place=self._host.address
            ) from error

    def close(self) -> None:
        """Close it; the program on the host ends."""
        if self._connection is not None:
            self._connection.close()

    def _receive(self, deadline: float) -> bytes:
        assert self._channel is not None
        while b"\n" not in self._waiting:
            if time.monotonic() > deadline:
                raise TimeoutError
            data = self._channel.recv(1 << 16)
            if not data:
                words = self._channel.recv_stderr(1 << 16).decode(errors="replace").strip()
                raise RemoteError(
                    f"our program on {self._host.name} ended: "
                    + (words.splitlines()[-1][:500] if words else "it said nothing"),
                    place=self._host.address,
                )
            self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line
