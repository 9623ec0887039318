"""Run commands on hosts over Fabric; host keys are always checked."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from fabric import Config, Connection
from invoke.exceptions import UnexpectedExit
from paramiko import AutoAddPolicy, RejectPolicy, SSHConfig
from paramiko.ssh_exception import SSHException

from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host
from ops.remote.ssh_config import ssh_config

CONNECT_SECONDS = 10


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


def run(connection: Connection, host: Host, command: str) -> str:
    """Run a shell command as root and return its standard output.

    Args:
        connection: from `connect`.
        host: the same host; it says whether root needs sudo.
        command: for the host's shell; quote what is not yours.

    Raises:
        RemoteError: no connection, or an exit status other than 0.
    """
    if host.become and host.user != "root":
        command = f"sudo -n sh -c {quote(command)}"
    try:
        result = connection.run(command, hide=True, in_stream=False)
    except UnexpectedExit as error:
        output = (error.result.stderr or error.result.stdout).strip()
        raise RemoteError(
            f"a command on {host.name} failed with status {error.result.exited}: {output[-2000:]}",
            place=f"{host.name}: {command[:200]}",
            cure=f"run it there by hand: ssh {host.address}",
        ) from error
    except (SSHException, OSError) as error:
        raise RemoteError(
            f"{host.name} cannot be reached over SSH: {error}",
            place=f"{host.user or 'you'}@{host.address}:{host.port}",
            cure="check that it is up, that your key is in its authorized_keys, and its host key",
        ) from error
    return str(result.stdout)
