"""What a host's exporters promise, where somebody watches the fleet."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.ports import EXPORTERS
from ops.verify.probes import ask, assert_listens_only_at, assert_unit_runs, http

MOST_BYTES = 5_000_000
FACTS_SECONDS = 120
TOLD = {
    "node": "node_boot_time_seconds|node_time",
    "postgres": "pg_up 1",
    "nginx": "nginx_up(?:{[^}]*})? 1",
}
"""What the page of an exporter has where what it asks answers."""


@pytest.fixture(scope="module", autouse=True)
def _watched(fleet: Fleet) -> None:
    """Pass over a fleet that nobody watches, as the roles do."""
    if not fleet.group("monitoring"):
        pytest.skip("no host is in group monitoring")


@pytest.mark.parametrize("name", TOLD)
def test_it_runs_and_tells_on_the_private_address_only(
    host: Connection, target: Host, address: str, name: str
) -> None:
    (port, groups), told = EXPORTERS[name], TOLD[name]
    if not target.groups & groups:
        pytest.skip(f"the host has nothing for the {name} exporter")
    assert_unit_runs(host, f"prometheus-{name}-exporter.service")
    assert_listens_only_at(host, port, {address})
    status, page = http(host, f"http://{address}:{port}/metrics", most_bytes=MOST_BYTES)
    assert status == 200
    assert re.search(f"^{told}", page, re.MULTILINE), f"the page lacks {told}"


@pytest.mark.parametrize("instance", ["cache", "state"])
def test_each_redis_answers_its_exporter(
    host: Connection, target: Host, address: str, fleet: Fleet, instance: str
) -> None:
    if "data" not in target.groups:
        pytest.skip("the host has no Redis")
    port = {"cache": 6379, "state": 6380}[instance]
    scheme = "redis" if fleet.single else "rediss"
    url = f"http://{address}:{EXPORTERS['redis'][0]}/scrape?target={scheme}://{address}:{port}"
    status, page = http(host, url, most_bytes=MOST_BYTES)
    assert (status, "redis_up 1" in page) == (200, True), page[-500:]


def test_its_own_facts_are_fresh_and_whole(host: Connection) -> None:
    page = ask(host, "cat /var/lib/rackhand/metrics/rackhand.prom")
    found = re.search(r"^rackhand_facts_timestamp_seconds (\S+)", page, re.MULTILINE)
    assert found, "rackhand-facts.service wrote nothing\ncure: journalctl -u rackhand-facts there"
    now = float(ask(host, "date +%s"))
    assert now - float(found[1]) < FACTS_SECONDS
    failed = re.findall(r'^rackhand_facts_failed\{part="(\w+)"\} 1', page, re.MULTILINE)
    assert failed == [], "journalctl -u rackhand-facts says why"


def test_its_exporters_do_not_run_as_root(host: Connection) -> None:
    pid = ask(host, "systemctl show -p MainPID --value %s", "prometheus-node-exporter.service")
    assert ask(host, "stat -c %%U /proc/%s", pid) == "prometheus"
