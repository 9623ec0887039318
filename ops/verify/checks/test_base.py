"""What every host promises."""

from __future__ import annotations

from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.ports import backup_ports, gpu_exporter_port, watched_ports
from ops.verify.probes import JOURNAL_LINES, ask, assert_access, listeners

OURS = "/etc/rackhand /etc/engine /etc/agent_app /etc/nginx /srv/models /opt/agent_app"


def allowed_listeners(fleet: Fleet, host: Host) -> set[tuple[str, int]]:
    """Which sockets may be open beyond loopback, by docs/architecture.md."""
    world, private = "0.0.0.0", fleet.listen_address(host)  # noqa: S104
    instances = int(host.variables.get("agent_app_instances", 2))
    allowed = {(world, host.port), (world, 22)}
    if "edge" in host.groups:
        allowed |= {(world, 80), (world, 443)}
    if "gpu" in host.groups:
        allowed |= {(private, model.proxy_port) for model in host.models}
        allowed.add((private, gpu_exporter_port(host)))
    if "agent" in host.groups:
        allowed |= {(private, base + n) for base in (8200, 8300) for n in range(instances)}
    if "data" in host.groups:
        allowed |= {(private, port) for port in (5432, 6379, 6380)}
    if fleet.group("monitoring"):
        allowed |= {(private, port) for port in watched_ports(host)}
    return allowed | {(private, port) for port in backup_ports(fleet, host)}


def test_no_unit_has_failed(host: Connection) -> None:
    failed = ask(host, "systemctl list-units --state=failed --plain --no-legend").split("\n")
    units = [line.split()[0] for line in failed if line.strip()]
    journal = ""
    for unit in units:
        lines = host.run("journalctl -u %s -n %s --no-pager", unit, str(JOURNAL_LINES)).stdout
        journal += f"\nlast lines of {unit}:\n{lines.strip()}"
    assert not units, f"failed: {', '.join(units)}{journal}"


def test_only_the_agreed_ports_are_open_beyond_loopback(
    host: Connection, target: Host, fleet: Fleet
) -> None:
    open_ports = {pair for pair in listeners(host) if not pair[0].startswith(("127.", "::1"))}
    extra = sorted(open_ports - allowed_listeners(fleet, target))
    named = ", ".join(f"{address}:{port}" for address, port in extra)
    assert not extra, f"also open: {named}\ncure: see what it is with `ss -ltnp`, and bind it"


def test_credentials_are_for_root_alone(host: Connection) -> None:
    assert_access(host, "/etc/rackhand/credentials", "root", "root", 0o700)
    loose = ask(host, "find /etc/rackhand/credentials -type f '(' ! -perm 600 -o ! -user root ')'")
    assert not loose, f"readable by others: {loose}"


def test_no_file_of_ours_can_be_written_by_everyone(host: Connection) -> None:
    loose = host.run(f"find {OURS} -xdev ! -type l -perm /o+w").stdout.strip()
    assert not loose, f"writable by everyone: {loose}"


def test_the_hosts_private_key_is_for_services_only(host: Connection, fleet: Fleet) -> None:
    if not fleet.single:
        assert_access(host, "/etc/rackhand/tls/host.key", "root", "ssl-cert", 0o640)


def test_the_journal_is_bounded(host: Connection) -> None:
    settings = ask(host, "systemd-analyze cat-config systemd/journald.conf")
    values = [line for line in settings.splitlines() if line.startswith("SystemMaxUse=")]
    assert values, "journald has no SystemMaxUse: it may fill the disk"
