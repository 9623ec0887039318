"""A program on a host that is told something by its standard input, and answers line by line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from shlex import quote
from typing import TYPE_CHECKING

from paramiko.ssh_exception import SSHException

from ops.errors import RemoteError
from ops.fleet.model import Host
from ops.remote.connection import run

if TYPE_CHECKING:
    from fabric import Connection

PING_SECONDS = 5.0
SILENCE_SECONDS = 45.0
OPEN_SECONDS = 30.0


def pipe(
    connection: Connection,
    host: Host,
    command: str,
    text: str,
    heard: Callable[[str], None] = lambda _: None,
    *,
    stays: bool = False,
) -> int:
    """Run a command as root and give it a text, which no list of processes shows.

    Args:
        connection: From `connect`.
        host: The same host.
        command: For the host's shell.
        text: Its standard input.
        heard: Called with each line that it prints.
        stays: Its input stays open, with an empty line now and then, so that it knows that we
            live; it has to print at least as often as every SILENCE_SECONDS.

    Returns:
        Its exit status.

    Raises:
        RemoteError: No connection, or it broke, or the program fell silent.
    """
    run(connection, host, "true")  # opens the connection, with errors for people
    if host.become and host.user != "root":
        command = f"sudo -n sh -c {quote(command)}"
    try:
        channel = connection.client.get_transport().open_session(timeout=OPEN_SECONDS)
        channel.settimeout(PING_SECONDS)
        channel.set_combine_stderr(True)
        channel.exec_command(command)
        channel.sendall(text.encode())
        if not stays:
            channel.shutdown_write()
        waiting, spoke = b"", time.monotonic()
        while True:
            try:
                data = channel.recv(1 << 16)
            except TimeoutError:
                data = None
            if data:
                spoke = time.monotonic()
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    heard(line.decode(errors="replace"))
            elif data == b"":
                break
            elif time.monotonic() - spoke > SILENCE_SECONDS:
                raise RemoteError(f"{host.name} fell silent", place=f"{host.name}: {command[:80]}")
            if stays:
                with contextlib.suppress(OSError):  # it ended: what it said last is still to come
                    channel.sendall(b"\n")
        return int(channel.recv_exit_status())
    except (SSHException, OSError, EOFError) as error:
        raise RemoteError(
            f"the line to {host.name} broke: {error or type(error).__name__}",
            place=f"{host.user or 'you'}@{host.address}:{host.port}",
            cure="check that it is up, then go on: ops resume, or the same command again",
        ) from error
