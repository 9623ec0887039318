"""The inventory's connection settings as an OpenSSH configuration.

One translation serves Fabric, testinfra and a person's own `ssh -F`.
"""

from __future__ import annotations

from pathlib import Path

from ops.errors import InputError
from ops.fleet.model import Fleet, Host


def ssh_config(fleet: Fleet) -> str:
    """Return an ssh_config with one entry per host, then the operator's own."""
    entries = [entry(host, fleet.inventory) for host in fleet.hosts]
    own = Path("~/.ssh/config").expanduser()
    if own.is_file():
        entries.append(own.read_text(encoding="utf-8"))
    return "\n".join(entries)


def entry(host: Host, inventory: Path) -> str:
    """Return the `Host` block of one host."""
    lines = [f"Host {host.name}", f"HostName {host.address}", f"Port {host.port}"]
    if host.user:
        lines.append(f"User {host.user}")
    if host.key_file:
        lines += [f'IdentityFile "{Path(host.key_file).expanduser()}"', "IdentitiesOnly yes"]
    lines += options(host, inventory)
    return "\n  ".join(lines) + "\n"


def options(host: Host, inventory: Path) -> list[str]:
    """Translate `ansible_ssh_common_args` to lines of an ssh_config."""
    flags = {"-J": "ProxyJump", "-i": "IdentityFile", "-l": "User", "-p": "Port"}
    lines = []
    arguments = iter(host.ssh_arguments)
    for argument in arguments:
        flag, value = argument[:2], argument[2:] or next(arguments, "")
        if flag == "-o" and value:
            key, _, setting = value.replace("=", " ", 1).partition(" ")
            lines.append(f"{key} {setting.strip()}")
        elif flag in flags and value:
            lines.append(f"{flags[flag]} {value}")
        else:
            raise InputError(
                f"ops cannot translate {argument} in ansible_ssh_common_args of {host.name}",
                place=str(inventory),
                cure="write it as -o Option=value, or put it into ~/.ssh/config",
            )
    return lines
