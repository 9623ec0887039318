"""What the two Redis instances promise."""

from __future__ import annotations

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet
from ops.verify.probes import ask, assert_access, assert_listens_only_at, assert_unit_runs

GROUPS = ("data",)
INSTANCES = (("cache", 6379), ("state", 6380))
each_instance = pytest.mark.parametrize(("name", "port"), INSTANCES)


def settings(host: Connection, name: str) -> dict[str, str]:
    """Return the configuration file, after making sure that the process has read it."""
    path, unit = f"/etc/redis/redis-{name}.conf", f"redis-server@{name}.service"
    written = int(ask(host, "stat -c %%Y %s", path))
    began = ask(host, "systemctl show -p ActiveEnterTimestampMonotonic --value %s", unit)
    uptime = float(ask(host, "cat /proc/uptime").split()[0])
    now = float(ask(host, "date +%s"))
    started = now - uptime + int(began) / 1_000_000
    assert started + 2 > written, f"{path} is newer than the running {unit}\ncure: restart it"
    lines = ask(host, "cat %s", path).splitlines()
    pairs = (line.split(None, 1) for line in lines if line and not line.startswith("#"))
    return {pair[0]: pair[1].strip('"') if len(pair) > 1 else "" for pair in pairs}


@each_instance
def test_it_runs_and_comes_back_after_a_reboot(host: Connection, name: str, port: int) -> None:
    assert_unit_runs(host, f"redis-server@{name}.service")


@each_instance
def test_it_listens_on_the_private_address_only(
    host: Connection, name: str, port: int, address: str
) -> None:
    found = {a for a in ("127.0.0.1", address) if host.socket(f"tcp://{a}:{port}").is_listening}
    assert address in found, f"port {port} is not open at {address}"
    assert_listens_only_at(host, port, found)


def test_the_cache_is_bounded_and_evicts_what_is_used_least(host: Connection) -> None:
    found = settings(host, "cache")
    assert found["maxmemory-policy"] == "allkeys-lru"
    assert found["maxmemory"] not in ("", "0")
    assert found["appendonly"] == "no"


def test_the_state_is_never_evicted_and_is_on_disk(host: Connection) -> None:
    found = settings(host, "state")
    assert found["maxmemory-policy"] == "noeviction"
    assert (found["appendonly"], found["appendfsync"]) == ("yes", "everysec")


@each_instance
def test_each_user_may_what_it_needs_and_passwords_are_hashes(
    host: Connection, name: str, port: int
) -> None:
    lines = ask(host, "cat %s", f"/etc/redis/{name}.acl").splitlines()
    users = {words[1]: words[2:] for line in lines if (words := line.split())}
    assert users.pop("default") == ["off"], "user default is not off"
    assert {"agent_app", "reloader"} <= users.keys() <= {"agent_app", "monitor", "reloader"}
    for user, rules in users.items():
        loose = [rule for rule in rules if rule.startswith(">") or rule == "nopass"]
        assert not loose, f"{user} has a password in clear, or none"
        assert any(rule.startswith("#") for rule in rules), f"{user} has no password"
        if user == "agent_app":
            assert {"-@admin", "-@dangerous"} <= set(rules)
        else:
            assert {"resetkeys", "-@all"} <= set(rules), f"{user} may more than it needs"


@each_instance
def test_hosts_speak_tls_with_it_and_nothing_else(
    host: Connection, name: str, port: int, fleet: Fleet
) -> None:
    found = settings(host, name)
    assert found["protected-mode"] == "yes"
    if not fleet.single:
        assert (found["port"], found["tls-port"]) == ("0", str(port))


@each_instance
def test_no_one_enters_without_a_password(
    host: Connection, name: str, port: int, address: str, fleet: Fleet
) -> None:
    tls = "" if fleet.single else " --tls --cacert /etc/rackhand/tls/ca.crt"
    answer = host.run(f"redis-cli -h {address} -p {port}{tls} get x")
    assert "NOAUTH" in answer.stdout + answer.stderr, f"answered: {answer.stdout.strip()}"
    assert_access(host, f"/etc/redis/{name}.acl", "root", "redis", 0o640)
