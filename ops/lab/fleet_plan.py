"""The wanted state of a lab: names, addresses and groups, all derived from four values."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from ops.errors import InputError, OpsError
from ops.lab.gpu.catalogue import parse_gpus
from ops.lab.image import Image, find_image
from ops.lab.paths import LabPaths, write_atomically

DOMAIN = "agent.rackhand.test"
OUTSIDE = "outside"
ACME_NAME = "acme.rackhand.test"
MIRROR_NAME = "mirror.rackhand.test"  # where a site's variables point
ARCHIVE_NAME = "archive.rackhand.test"  # the distribution's own archive, as hosts are installed
GROUPS = ("gpu", "agent", "data", "edge", "monitoring")
FIRST_HOST = 11  # node1 is 10.77.N.11
MOST_HOSTS = 20
NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


@dataclass(frozen=True)
class LabPlan:
    """What a lab is to be.

    Attributes:
        name: The lab's name.
        index: Its share of the address range: 10.77.<index>.0/24.
        image_name: Image of its hosts.
        size: Number of hosts, `outside` not counted.
        gpus: GPUs of each host of group gpu, such as `H100:2`; none makes them plain hosts.
    """

    name: str
    index: int
    image_name: str
    size: int
    gpus: str = ""

    def __post_init__(self) -> None:
        """Refuse what no lab can be.

        Raises:
            InputError: A bad name, number of hosts, image or GPU.
        """
        if not NAME.fullmatch(self.name):
            raise InputError(
                f"{self.name!r} is no name for a lab",
                cure="use up to 20 lower-case letters, digits and hyphens, a letter first",
            )
        if not 1 <= self.size <= MOST_HOSTS:
            raise InputError(
                f"A lab has 1 to {MOST_HOSTS} hosts, not {self.size}", cure="change --hosts"
            )
        find_image(self.image_name)
        if self.gpus:
            parse_gpus(self.gpus)

    @property
    def paths(self) -> LabPaths:
        """Its folders."""
        return LabPaths(self.name)

    @property
    def image(self) -> Image:
        """The image of its hosts."""
        return find_image(self.image_name)

    @property
    def bridge(self) -> str:
        """Name of its bridge."""
        return f"rh-{self.index}"

    @property
    def table(self) -> str:
        """Name of its nftables table."""
        return f"rackhand_{self.name.replace('-', '_')}"

    @property
    def subnet(self) -> str:
        """Its addresses."""
        return f"10.77.{self.index}.0/24"

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge."""
        return f"10.77.{self.index}.1"

    @property
    def nodes(self) -> list[str]:
        """Hosts of the fleet."""
        return [f"node{number}" for number in range(1, self.size + 1)]

    @property
    def hosts(self) -> list[str]:
        """Every host: the fleet, and the one that stands for the internet."""
        return [*self.nodes, OUTSIDE]

    def image_of(self, host: str) -> Image:
        """The image a host is made from; `outside` is always plain Debian."""
        return find_image(self.image.suite) if host == OUTSIDE else self.image

    def address(self, host: str) -> str:
        """A host's static address."""
        last = 2 if host == OUTSIDE else FIRST_HOST - 1 + int(host.removeprefix("node"))
        return f"10.77.{self.index}.{last}"

    def is_simulated(self, host: str) -> bool:
        """Whether a host has simulated GPUs, and so a simulated kernel."""
        return bool(self.gpus) and host in self.groups()["gpu"]

    def groups(self) -> dict[str, list[str]]:
        """Which host is in which group, by the layouts of docs/architecture.md."""
        first, last = self.nodes[0], self.nodes[-1]
        if self.size == 1:
            return {group: [first] for group in GROUPS}
        if self.size == 2:
            return {group: [last if group == "gpu" else first] for group in GROUPS}
        return {
            "gpu": ["node2", *self.nodes[3:]],
            "agent": ["node1"],
            "data": ["node3"],
            "edge": ["node1"],
            "monitoring": ["node3"],
        }

    def names(self) -> str:
        """The hosts file that all of them share."""
        edge = self.groups()["edge"][0]
        outside = f"{ACME_NAME} {MIRROR_NAME} {ARCHIVE_NAME}" if self.gpus else ACME_NAME
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
        for host in self.hosts:
            also = {edge: f" {DOMAIN}", OUTSIDE: f" {outside}"}.get(host, "")
            lines.append(f"{self.address(host)} {host}{also}")
        return "\n".join(lines) + "\n"

    def save(self) -> None:
        """Write the wanted state; from here on the lab exists."""
        write_atomically(self.paths.wanted, json.dumps(asdict(self), indent=2) + "\n")


def load_plan(name: str) -> LabPlan | None:
    """The wanted state of a lab, or None where there is no such lab.

    Raises:
        OpsError: The file was damaged by hand.
    """
    path = LabPaths(name).wanted
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return LabPlan(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as problem:
        raise OpsError(
            f"The lab's wanted state cannot be read: {problem}",
            place=str(path),
            cure=f'write {{"name": "{name}", "index": N, "image_name": "bookworm", "size": 1}}'
            " with the N of its bridge rh-N into it, then `ops lab down`",
        ) from problem


def require_plan(name: str) -> LabPlan:
    """The wanted state of a lab.

    Raises:
        InputError: There is no such lab.
    """
    plan = load_plan(name)
    if plan is None:
        raise InputError(f"There is no lab {name!r}", cure=f"ops lab up --name {name}")
    return plan
