"""What each host says of a model: the slot that serves, the one beside it, and room for both."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ops.engine.switchboard import Switchboard
from ops.errors import OpsError, RemoteError
from ops.fleet.model import SLOTS, Fleet, Host, Model
from ops.remote import connect

MOST_AT_ONCE = 16
COPY_MARGIN = 1.2
"""A second engine asks for what the first holds, and some more while it loads."""
GPU_SHARE = 0.9
"""vLLM's own share of a GPU where an entry names none."""


@dataclass(frozen=True)
class ModelOnHost:
    """A model on one host, as it is.

    Attributes:
        host: The host's name.
        active: The slot that serves; empty where none was ever set up.
        entry: What it serves, as in the inventory.
        standby: What the other slot had, `{}` if nothing.
        standby_runs: Whether that one still runs, ready for a rollback of seconds.
        traffic: Share by slot.
        held: Whether new requests are refused.
        memory_used: Bytes that the active engine holds.
        memory_available: Bytes that the host has left.
        weights: Revisions that are staged.
    """

    host: str
    active: str
    entry: Mapping[str, Any]
    standby: Mapping[str, Any] = field(default_factory=dict)
    standby_runs: bool = False
    traffic: Mapping[str, int] = field(default_factory=dict)
    held: bool = False
    memory_used: int = 0
    memory_available: int = 0
    weights: tuple[str, ...] = ()

    @property
    def other(self) -> str:
        """The slot that does not serve."""
        return SLOTS[1 - SLOTS.index(self.active or SLOTS[0])]

    def has_room_beside(self, candidate: Mapping[str, Any]) -> bool:
        """Whether a second engine fits beside the one that serves.

        On GPUs by the shares that both claim of those they have in common; without GPUs by the
        memory that the first one holds.
        """
        gpus = set(candidate.get("gpus") or ())
        if not gpus:
            return self.memory_available >= self.memory_used * COPY_MARGIN
        if not gpus & set(self.entry.get("gpus") or ()):
            return True
        shares = [
            float(entry.get("gpu_memory_utilization", GPU_SHARE))
            for entry in (self.entry, candidate)
        ]
        return sum(shares) <= 1.0


def find_model(fleet: Fleet, name: str) -> Model:
    """Return a model that hosts of the fleet serve.

    Raises:
        OpsError: None does.
    """
    models = {m.name: m for host in fleet.group("gpu") for m in host.models}
    if name not in models:
        raise OpsError(
            f"no host serves a model named {name}",
            place=str(fleet.inventory),
            cure="one of: " + ", ".join(sorted(models)),
        )
    return models[name]


def model_on(host: Host, name: str) -> Model | None:
    """A host's own entry of a model: its place in the list gives the ports."""
    return next((model for model in host.models if model.name == name), None)


def survey(fleet: Fleet, name: str, limit: tuple[str, ...] = ()) -> list[ModelOnHost]:
    """Ask every host that serves a model, at once.

    Args:
        fleet: The fleet.
        name: The model's.
        limit: Only these hosts.

    Raises:
        OpsError: A host does not answer, or none serves it.
    """
    find_model(fleet, name)
    hosts = [h for h in fleet.group("gpu") if model_on(h, name) and (not limit or h.name in limit)]
    if not hosts:
        raise OpsError(f"none of {', '.join(limit)} serves {name}", cure="ops status")
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        return list(pool.map(lambda host: ask(fleet, host, name), hosts))


def ask(fleet: Fleet, host: Host, name: str) -> ModelOnHost:
    """Ask one host.

    Raises:
        RemoteError: It does not answer.
    """
    model = model_on(host, name)
    assert model is not None
    with connect(fleet, host) as connection:
        found = Switchboard(connection, host, model).survey()
    return read_survey(host.name, found)


def read_survey(host: str, found: Mapping[str, Any]) -> ModelOnHost:
    """Turn what the host says into a ModelOnHost."""
    fact, slots = found["fact"], found["slots"]
    active = fact.get("active", "")
    other = SLOTS[1 - SLOTS.index(active or SLOTS[0])]
    return ModelOnHost(
        host=host,
        active=active,
        entry=fact.get("entry") or {"revision": fact.get("revision", "")},
        standby=fact.get("standby") or {},
        standby_runs=slots[other]["active"] == "active",
        traffic=fact.get("traffic") or ({active: 100} if active else {}),
        held=found["held"],
        memory_used=slots[active]["memory"] if active else 0,
        memory_available=found["memory_available"],
        weights=tuple(found["weights"]),
    )


def reachable(fleet: Fleet, host: Host) -> bool:
    """Whether a host answers over SSH."""
    from ops.remote import run

    try:
        with connect(fleet, host) as connection:
            run(connection, host, "true")
    except RemoteError:
        return False
    return True
