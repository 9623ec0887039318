"""Ports of what tells Prometheus of a host, as docs/architecture.md has them."""

from __future__ import annotations

from ops.fleet.model import Fleet, Host

EXPORTERS = {
    "node": (9100, frozenset({"gpu", "agent", "data", "edge", "monitoring"})),
    "nginx": (9113, frozenset({"gpu", "edge"})),
    "redis": (9121, frozenset({"data"})),
    "postgres": (9187, frozenset({"data"})),
}
"""The packaged exporters: port, and the groups whose hosts have them."""
SLOT_METRICS = 8501
"""Where the engine proxy of a fleet of several hosts shows its slots' metrics."""


def gpu_exporter_port(host: Host) -> int:
    """Where the GPU exporter of a host listens."""
    return int(host.variables.get("gpu_exporter_port", 9835))


def backup_ports(fleet: Fleet, host: Host) -> set[int]:
    """Where the two hosts of backups listen for each other, by playbooks/group_vars/all.yml."""
    variables, data = host.variables, fleet.first("data")
    if fleet.single or variables.get("backup_repository", "host") != "host":
        return set()
    others = [
        one.name
        for one in (*fleet.group("monitoring"), *fleet.group("gpu"), *fleet.hosts)
        if "data" not in one.groups
    ]
    repository = variables.get("backup_repository_host") or next(iter(others), "")
    ends = (data.name, repository)
    return {int(variables.get("backup_port", 8432))} if host.name in ends else set()


def watched_ports(host: Host) -> set[int]:
    """The ports that a host of a watched fleet has open for its Prometheus."""
    ports = {port for port, groups in EXPORTERS.values() if groups & host.groups}
    ports.add(EXPORTERS["node"][0])  # also of a host in none of these groups
    return ports | ({SLOT_METRICS} if "gpu" in host.groups else set())
