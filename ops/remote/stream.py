"""Commands whose input or output is too large, or too secret, to be held in a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from ops.errors import RemoteError, UnreachableError
from ops.fleet.model import Host
from ops.remote.connection import CONNECT_SECONDS, open_line

if TYPE_CHECKING:
    from fabric import Connection

BLOCK = 65536


@dataclass(frozen=True)
class Finished:
    """What a command ended with; its output is empty where a sink took it."""

    status: int
    output: str
    complaint: str


def execute(
    connection: Connection,
    host: Host,
    command: str,
    *,
    source: Iterable[bytes] = (),
    sink: Callable[[bytes], object] | None = None,
) -> Finished:
    """Run a shell command as root with bytes in and out; its exit status is the caller's matter.

    Args:
        connection: From `connect`.
        host: The same host; it says whether root needs sudo.
        command: For the host's shell; quote what is not yours.
        source: Its standard input, taken as fast as the host reads.
        sink: Takes its standard output block by block.

    Raises:
        UnreachableError: There is no connection.
        RemoteError: The connection ended before the command did.
    """
    from paramiko.ssh_exception import SSHException

    if host.become and host.user != "root":
        command = f"sudo -n sh -c {quote(command)}"
    try:
        open_line(connection)
        channel = connection.transport.open_session(timeout=CONNECT_SECONDS)
    except (SSHException, OSError) as error:
        raise UnreachableError(
            f"{host.name} cannot be reached over SSH: {error}",
            place=f"{host.user or 'you'}@{host.address}:{host.port}",
            cure="check that it is up, that your key is in its authorized_keys, and its host key",
        ) from error
    kept: list[bytes] = []
    take = sink or kept.append
    with channel:  # closed on Ctrl-C too: the command's input ends, and its cleaning up begins
        channel.exec_command(command)
        for block in source:
            try:
                channel.sendall(block)
            except OSError:  # it ended before it had read all; its status says why
                break
        channel.shutdown_write()
        while block := channel.recv(BLOCK):
            take(block)
        complaint = b"".join(iter(lambda: channel.recv_stderr(BLOCK), b""))
        status = channel.recv_exit_status()
    if status < 0:
        raise RemoteError(
            f"the connection to {host.name} ended before the command did",
            place=f"{host.name}: {command[:200]}",
            cure="look whether the host is up, and run it again",
        )
    return Finished(
        status, b"".join(kept).decode(errors="replace"), complaint.decode(errors="replace")
    )
