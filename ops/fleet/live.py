"""What is true on the hosts right now: units and engine facts, one command per host."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host

UNITS = (
    "engine@*.service",
    "agent_app@*.service",
    "nginx.service",
    "postgresql@*.service",
    "redis-server@*.service",
    "certbot.timer",
)
SURVEY = (
    f"systemctl list-units --all --output=json {' '.join(repr(unit) for unit in UNITS)}; echo; "
    "cat /etc/ansible/facts.d/engine.fact 2>/dev/null || echo '{\"models\": {}}'; echo; "
    "cut -d' ' -f1 /proc/loadavg; "
    "awk '/MemTotal/ {t=$2} /MemAvailable/ {a=$2} END {print int((t-a)/1024), int(t/1024)}' "
    "/proc/meminfo"
)
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class HostState:
    """One host as it is; `problem` says why nothing is known."""

    host: str
    groups: tuple[str, ...]
    address: str
    problem: str = ""
    units: dict[str, str] = field(default_factory=dict)
    """Active state by unit."""
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By model: active slot, revision, environment."""
    load: float = 0.0
    memory_used_mib: int = 0
    memory_total_mib: int = 0

    @property
    def well(self) -> bool:
        """Whether it answers and each of its units is active."""
        return not self.problem and all(state == "active" for state in self.units.values())


def survey(fleet: Fleet) -> list[HostState]:
    """Ask every host at once; one that does not answer is a result, not an error."""
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        return list(pool.map(lambda host: ask(fleet, host), fleet.hosts))


def ask(fleet: Fleet, host: Host) -> HostState:
    """Ask one host."""
    from ops.remote import connect, run

    groups = tuple(sorted(host.groups))
    try:
        with connect(fleet, host) as connection:
            output = run(connection, host, SURVEY)
    except RemoteError as error:
        return HostState(host.name, groups, host.address, problem=error.message)
    return read_survey(host, groups, output)


def read_survey(host: Host, groups: tuple[str, ...], output: str) -> HostState:
    """Turn the output of SURVEY into a HostState."""
    decoder = json.JSONDecoder()
    units, end = decoder.raw_decode(output)
    rest = output[end:].lstrip()
    facts, end = decoder.raw_decode(rest)
    load, used, total = rest[end:].split()
    return HostState(
        host.name,
        groups,
        host.address,
        units={entry["unit"]: entry["active"] for entry in units},
        engines=facts.get("models", {}),
        load=float(load),
        memory_used_mib=int(used),
        memory_total_mib=int(total),
    )
