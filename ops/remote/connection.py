"""Run commands on hosts over Fabric; host keys are always checked."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from shlex import quote

from fabric import Config, Connection
from invoke.exceptions import UnexpectedExit
from paramiko import AutoAddPolicy, RejectPolicy, SSHConfig
from paramiko.ssh_exception import SSHException

from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host
from ops.remote.ssh_config import ssh_config

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # our errors tell what it logs

CONNECT_SECONDS = 10
KEEPALIVE_SECONDS = 15
SILENCE_SECONDS = 30
"""A host that lost its power says nothing: what waits on it ends after that."""


def connect(fleet: Fleet, host: Host) -> Connection:
    """Return a connection to a host; it opens with the first command.

    Use it as a context manager, so that it closes.
    """
    config = SSHConfig.from_text(ssh_config(fleet))
    connection = Connection(
        host.name, config=Config(ssh_config=config), connect_timeout=CONNECT_SECONDS
    )
    settings = config.lookup(host.name)
    known_hosts = settings.get("userknownhostsfile", "~/.ssh/known_hosts").split()
    for path in (Path(name).expanduser() for name in known_hosts):
        if path.is_file():
            connection.client.load_host_keys(str(path))
    checked = settings.get("stricthostkeychecking", "yes") not in ("no", "off", "accept-new")
    connection.client.set_missing_host_key_policy(RejectPolicy() if checked else AutoAddPolicy())
    return connection


def open_line(connection: Connection) -> None:
    """Open a connection unless it is open; it breaks by itself where its host falls silent.

    Raises:
        SSHException, OSError: The host is not to be had.
    """
    if connection.is_connected:
        return
    connection.open()
    transport = connection.transport
    transport.set_keepalive(KEEPALIVE_SECONDS)
    # Through a jump host it is a channel, and the line there is ssh's own matter.
    if isinstance(transport.sock, socket.socket) and hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = SILENCE_SECONDS * 1000
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def run(connection: Connection, host: Host, command: str) -> str:
    """Run a shell command as root and return its standard output.

    Args:
        connection: from `connect`.
        host: the same host; it says whether root needs sudo.
        command: for the host's shell; quote what is not yours.

    Raises:
        RemoteError: no connection, one that broke, or an exit status other than 0.
    """
    if host.become and host.user != "root":
        command = f"sudo -n sh -c {quote(command)}"
    try:
        open_line(connection)
        result = connection.run(command, hide=True, in_stream=False)
    except UnexpectedExit as error:
        if error.result.exited < 0:
            raise RemoteError(
                f"the connection to {host.name} ended before the command did",
                place=f"{host.name}: {command[:200]}",
                cure="look whether the host is up, and run it again",
            ) from error
        output = (error.result.stderr or error.result.stdout).strip()
        raise RemoteError(
            f"a command on {host.name} failed with status {error.result.exited}: {output[-2000:]}",
            place=f"{host.name}: {command[:200]}",
            cure=f"run it there by hand: ssh {host.address}",
        ) from error
    except (SSHException, OSError) as error:
        raise unreachable(host, error) from error
    return str(result.stdout)


def unreachable(host: Host, error: Exception) -> RemoteError:
    """Return what to say of a host that no connection leads to."""
    return RemoteError(
        f"{host.name} cannot be reached over SSH: {str(error) or type(error).__name__}",
        place=f"{host.user or 'you'}@{host.address}:{host.port}",
        cure="check that it is up, that your key is in its authorized_keys, and its host key",
    )
