"""One host as it is, typed: read from what `look_program.py` tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ops.fleet.model import Host

UNITS = (
    "engine@*.service",
    "agent_app@*.service",
    "nginx.service",
    "postgresql@*.service",
    "redis-server@*.service",
    "certbot.timer",
)
"""What should be active where it is; of other units only failed ones are of interest."""
ACTIVE, INACTIVE, FAILED = "active", "inactive", "failed"
WELL = (ACTIVE, "reloading")  # nginx, in each shift of traffic: it serves meanwhile
FULL = 0.85
EXPIRES_SOON_DAYS = 14.0  # certbot renews 30 days before
DAY = 86400.0
MIB = 1 << 20


@dataclass(frozen=True)
class Fill:
    """Something that fills up; bytes."""

    used: int
    total: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.used / self.total if self.total else 0.0


@dataclass(frozen=True)
class Gpu:
    """A GPU; None where its driver does not tell."""

    index: int
    name: str
    uuid: str
    memory_used_mib: int | None
    memory_total_mib: int | None
    temperature_c: int | None
    utilization_percent: int | None


@dataclass(frozen=True)
class Counts:
    """What an engine, or an instance of the app, has done since it started.

    Attributes:
        gauges: What is now: `running`, `waiting`, `kv_cache` (0 to 1); `in_flight`, `queued`.
        totals: What only grows: requests, failed ones, tokens.
        first_token: Requests by upper bound of their first token's seconds, cumulative.
        answers: Whether its metrics could be read.
    """

    gauges: Mapping[str, float] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)
    first_token: Mapping[str, float] = field(default_factory=dict)
    answers: bool = False


@dataclass(frozen=True)
class Slot:
    """A slot of a model on a host.

    Attributes:
        name: `blue` or `green`.
        state: Its unit's, as systemd has it.
        share: Of the model's requests to this host, in percent.
        revision, environment: What it is started with; empty where nothing was laid down.
        kept_until: When the host stops it, in seconds since the epoch; None: nobody said.
        counts: None where nobody asked.
    """

    name: str
    unit: str
    state: str
    share: int
    revision: str
    environment: str
    kept_until: float | None = None
    counts: Counts | None = None


@dataclass(frozen=True)
class ModelState:
    """A model on a host; `held` says why new requests for it are refused."""

    active: str
    slots: Mapping[str, Slot]
    held: str = ""


@dataclass(frozen=True)
class Instance:
    """An instance of the agent app."""

    port: str
    state: str
    counts: Counts | None = None

    @property
    def unit(self) -> str:
        """The systemd unit that runs it."""
        return f"agent_app@{self.port}.service"


@dataclass(frozen=True)
class HostState:
    """One host as it is; `problem` says why nothing is known."""

    host: str
    groups: tuple[str, ...]
    address: str
    problem: str = ""
    at: float = 0.0
    """The host's own clock that never jumps, in seconds; differences alone mean something."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Active state by unit."""
    models: Mapping[str, ModelState] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    drained: str = ""
    """Why the host takes no new requests for its models."""
    load: float = 0.0
    processors: int = 0
    memory: Fill = Fill(0, 0)
    disks: Mapping[str, Fill] = field(default_factory=dict)
    certificate_days: float | None = None
    """Until the edge's certificate ends; None where there is none."""
    gpus: tuple[Gpu, ...] = ()
    refused: float | None = None
    """Requests that were refused because the host, or a model on it, is drained or held."""
    complaints: tuple[str, ...] = ()
    """What could not be told, or what nvidia-smi finds wrong."""
    operation: Mapping[str, Any] | None = field(default=None, repr=False)
    """On the keeper: the stored operation that has not ended."""

    @property
    def unwell(self) -> dict[str, str]:
        """Units that are not as they should be, with their state.

        An engine's unit may be stopped where its slot does not serve, and may still be starting.
        """
        slots = [(m.active, slot) for m in self.models.values() for slot in m.slots.values()]
        idle = {slot.unit for active, slot in slots if slot.name != active}
        # One that is stopped and that nothing names is not in systemd's list at all.
        wanted = {slot.unit: slot.state for active, slot in slots if slot.name == active}
        wanted |= {one.unit: one.state for one in self.instances}
        return {
            unit: state
            for unit, state in {**wanted, **self.units}.items()
            if state not in WELL and not (unit in idle and state != FAILED)
        }

    @property
    def well(self) -> bool:
        """Whether it answers and each of its units is as it should be."""
        return not self.problem and not self.unwell

    def as_record(self) -> dict[str, Any]:
        """All of it for programs, without what only comparisons need."""
        found = asdict(self)
        for hidden in ("at", "operation", "instances", "refused"):
            del found[hidden]
        for model in found["models"].values():
            for slot in model["slots"].values():
                del slot["counts"], slot["name"]
        return {
            **found,
            "well": self.well,
            "unwell": self.unwell,
            "app": {one.port: {"state": one.state} for one in self.instances},
        }


def silent(host: Host, problem: str) -> HostState:
    """Return the state of a host of which nothing is known."""
    return HostState(host.name, tuple(sorted(host.groups)), host.address, problem=problem)


def read_look(host: Host, told: Mapping[str, Any]) -> HostState:
    """Turn what the program on the host told into a HostState."""
    units = {name: about["active"] for name, about in told["units"].items()}
    load = told["load"] or [0.0, 0.0]
    certificate = told["certificate"]
    gpus, complaint = told["gpus"]["listed"], told["gpus"]["complaint"]
    return HostState(
        host=host.name,
        groups=tuple(sorted(host.groups)),
        address=host.address,
        at=told["monotonic"],
        units=units,
        models={
            name: _model(about, told["held"].get(name, ""))
            for name, about in told["models"].items()
        },
        instances=tuple(
            Instance(
                port,
                units.get(f"agent_app@{port}.service", INACTIVE),
                _counts(about.get("metrics"), {}) if "metrics" in about else None,
            )
            for port, about in told["instances"].items()
        ),
        drained=told["drained"],
        load=load[0],
        processors=int(load[1]),
        memory=Fill(**told["memory"]) if told["memory"] else Fill(0, 0),
        disks={path: Fill(**about) for path, about in told["disks"].items()},
        certificate_days=round((certificate["expires"] - told["now"]) / DAY, 1)
        if certificate
        else None,
        gpus=tuple(_gpu(about) for about in gpus),
        refused=told.get("refused"),
        complaints=(*told["complaints"], *([complaint] if complaint else [])),
        operation=told["operation"],
    )


def _model(about: Mapping[str, Any], held: str) -> ModelState:
    slots = {}
    for name, slot in about["slots"].items():
        counts = _counts(slot.get("metrics"), slot["log"]) if "log" in slot else None
        own = {key: slot[key] for key in ("unit", "state", "share", "revision", "environment")}
        slots[name] = Slot(name, **own, kept_until=slot["kept_until"], counts=counts)
    return ModelState(about["active"], slots, held)


GAUGES = ("running", "waiting", "kv_cache", "in_flight", "queued")


def _counts(metrics: Mapping[str, Any] | None, log: Mapping[str, float]) -> Counts:
    """What the metrics page has, and beside it what the proxy's log counted."""
    told = dict(metrics or {})
    bounds = told.pop("first_token", {})
    gauges = {name: told.pop(name) for name in GAUGES if name in told}
    return Counts(gauges, {**told, **log}, bounds, answers=metrics is not None)


def _gpu(about: Mapping[str, str]) -> Gpu:
    def number(name: str) -> int | None:
        try:
            return round(float(about[name]))
        except ValueError:
            return None  # [N/A], [Unknown Error]

    return Gpu(
        index=number("index") or 0,
        name=about["name"],
        uuid=about["uuid"],
        memory_used_mib=number("memory.used"),
        memory_total_mib=number("memory.total"),
        temperature_c=number("temperature.gpu"),
        utilization_percent=number("utilization.gpu"),
    )
