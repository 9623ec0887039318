"""The app's instances as the inventory has them, and what each host says that they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ops.app.host import AppHost
from ops.errors import OpsError
from ops.fleet.model import Fleet, Host
from ops.remote import connect

BASE_PORT = 8200
INSTANCES = 2
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Instance:
    """One process of the app: its host's name, its port, and the address where it listens."""

    host: str
    port: int
    address: str

    @property
    def backend(self) -> str:
        """As the edge's upstream names it."""
        return f"{self.address}:{self.port}"

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return f"agent_app@{self.port}.service"


@dataclass(frozen=True)
class App:
    """The app, as far as it follows models.

    Attributes:
        instances: All of them.
        knows_revisions: Whether its configuration has the models' revisions.
    """

    instances: tuple[Instance, ...] = ()
    knows_revisions: bool = False


NO_APP = App()


@dataclass(frozen=True)
class AppOnHost:
    """The app on one host, as it is.

    Attributes:
        host: The host's name.
        current: The release that the host runs.
        running: The release that each instance runs, by port.
        releases: What is built there.
        fact: Who put the release there: `release`, `previous`, `operation`; `{}` if the role did.
        config: The text of its configuration.
    """

    host: str
    current: str
    running: Mapping[int, str]
    releases: tuple[str, ...] = ()
    fact: Mapping[str, str] = field(default_factory=dict)
    config: str = ""

    @property
    def previous(self) -> str:
        """The release to go back to, empty if none is known."""
        return self.fact.get("previous", "")


def instances_on(fleet: Fleet, host: Host) -> tuple[Instance, ...]:
    """A host's instances, with role agent_app's defaults."""
    if "agent" not in host.groups:
        return ()
    first = int(host.variables.get("agent_app_base_port", BASE_PORT))
    count = int(host.variables.get("agent_app_instances", INSTANCES))
    address = fleet.listen_address(host)
    return tuple(Instance(host.name, port, address) for port in range(first, first + count))


def instances(fleet: Fleet, limit: Sequence[str] = ()) -> tuple[Instance, ...]:
    """All instances, host by host.

    Raises:
        OpsError: There is none.
    """
    found = tuple(
        instance
        for host in fleet.group("agent")
        if not limit or host.name in limit
        for instance in instances_on(fleet, host)
    )
    if not found:
        raise OpsError(
            "no host runs the agent app" + (f" among {', '.join(limit)}" if limit else ""),
            place=str(fleet.inventory),
            cure="one of: " + ", ".join(host.name for host in fleet.group("agent")),
        )
    return found


def following(fleet: Fleet) -> App:
    """The app of a fleet, if it has any."""
    hosts = fleet.group("agent")
    if not hosts:
        return NO_APP
    return App(
        instances=instances(fleet),
        knows_revisions=any(host.variables.get("agent_app_cache") for host in hosts),
    )


def survey(fleet: Fleet, found: Sequence[Instance]) -> list[AppOnHost]:
    """Ask the hosts of these instances, at once.

    Raises:
        RemoteError: One does not answer.
        OpsError: One was provisioned before instances had releases of their own.
    """
    names = list(dict.fromkeys(instance.host for instance in found))
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        return list(pool.map(lambda name: ask(fleet, fleet.host(name)), names))


def ask(fleet: Fleet, host: Host) -> AppOnHost:
    """Ask one host.

    Raises:
        RemoteError: It does not answer.
        OpsError: An instance has no release.
    """
    ports = [instance.port for instance in instances_on(fleet, host)]
    with connect(fleet, host) as connection:
        found = AppHost(connection, host).survey(ports)
    running = {int(port): release for port, release in found["instances"].items()}
    if not all(running.values()):
        raise OpsError(
            f"an instance of the app on {host.name} has no release of its own",
            place=f"{host.name}: /opt/agent_app/instances",
            cure=f"ops provision --tags app,edge -i {fleet.inventory}",
        )
    return AppOnHost(
        host=host.name,
        current=found["current"],
        running=running,
        releases=tuple(found["releases"]),
        fact=found["fact"],
        config=found["config"],
    )
