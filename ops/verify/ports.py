"""Which ports a host has open to whom, as docs/architecture.md has them."""

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
WEIGHTS = 8400
"""Where one revision's weights are handed on, only while `ops` spreads them."""
EDGE = (80, 443)


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


def ssh_ports(host: Host) -> set[int]:
    """Where sshd of a host may be reached."""
    named = host.variables.get("hardening_ssh_ports")
    return {int(port) for port in named} if named else {22, host.port}


def world_ports(host: Host) -> set[int]:
    """The ports that everyone may reach, beside sshd's."""
    return set(EDGE) if "edge" in host.groups else set()


def fleet_ports(fleet: Fleet, host: Host) -> set[int]:
    """The ports that the fleet's other hosts, and nobody else, may reach on this one."""
    if fleet.single:
        return set()
    watched = bool(fleet.group("monitoring"))
    instances = range(int(host.variables.get("agent_app_instances", 2)))
    ports = watched_ports(host) if watched else set()
    if "gpu" in host.groups:
        ports |= {model.proxy_port for model in host.models}
        ports |= {WEIGHTS, gpu_exporter_port(host)}
    if "agent" in host.groups:
        first = int(host.variables.get("agent_app_base_port", 8200))
        metrics = int(host.variables.get("agent_app_metrics_base_port", 8300))
        ports |= {first + n for n in instances}
        ports |= {metrics + n for n in instances} if watched else set()
    if "data" in host.groups:
        names = (("postgres_port", 5432), ("redis_cache_port", 6379), ("redis_state_port", 6380))
        ports |= {int(host.variables.get(name, port)) for name, port in names}
    return ports | backup_ports(fleet, host)
