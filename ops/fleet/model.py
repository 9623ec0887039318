"""What an inventory says, as frozen data. Ports and paths are those of docs/architecture.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.errors import InputError

LOOPBACK = "127.0.0.1"
SLOTS = ("blue", "green")


@dataclass(frozen=True)
class Model:
    """A model as the inventory wants it; `index` is its place in `models:`."""

    name: str
    source: str
    revision: str
    index: int

    @property
    def proxy_port(self) -> int:
        """The port at which other hosts reach the model."""
        return 8000 + self.index

    def slot_port(self, slot: str) -> int:
        """The loopback port of one slot."""
        return 8100 + 2 * self.index + SLOTS.index(slot)

    @property
    def weights(self) -> Path:
        """The folder of the weights on a host."""
        return Path("/srv/models") / self.name / self.revision


@dataclass(frozen=True)
class Host:
    """One host: how to reach it, what it is for, and its variables, rendered."""

    name: str
    address: str
    groups: frozenset[str]
    private_address: str
    models: tuple[Model, ...] = ()
    port: int = 22
    user: str = ""
    key_file: str = ""
    ssh_arguments: tuple[str, ...] = ()
    become: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Fleet:
    """All hosts of one inventory."""

    inventory: Path
    domain: str
    hosts: tuple[Host, ...]

    @property
    def single(self) -> bool:
        """Whether one host is everything, so that nothing leaves its loopback."""
        return len(self.hosts) == 1

    def group(self, name: str) -> tuple[Host, ...]:
        """The hosts of a group, in the inventory's order."""
        return tuple(host for host in self.hosts if name in host.groups)

    def first(self, group: str) -> Host:
        """The first host of a group.

        Raises:
            InputError: the group is empty.
        """
        for host in self.group(group):
            return host
        raise InputError(
            f"no host is in group {group}",
            place=str(self.inventory),
            cure=f"put a host into the group {group}",
        )

    def host(self, name: str) -> Host:
        """The host with this name.

        Raises:
            InputError: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise InputError(
            f"no host is named {name}",
            place=str(self.inventory),
            cure="one of: " + ", ".join(host.name for host in self.hosts),
        )

    def listen_address(self, host: Host) -> str:
        """Where the private services of a host listen."""
        return LOOPBACK if self.single else host.private_address
