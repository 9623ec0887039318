"""Which sockets of a host may be open beyond its loopback."""

from pathlib import Path

from ops.fleet.model import Fleet, Host, Model
from ops.verify.checks.test_base import allowed_listeners

DEMO = Model("demo", "hf://x/demo", "r1", 0)
GROUPS = {"front": "edge agent", "gpu1": "gpu", "data1": "data", "watch1": "monitoring"}


def fleet(*names: str) -> Fleet:
    hosts = [
        Host(name, "", frozenset(GROUPS[name].split()), f"10.0.0.{number}", (DEMO,))
        for number, name in enumerate(names, 1)
    ]
    return Fleet(Path("inventories/x"), "agent.example.com", tuple(hosts))


def ports(whole: Fleet, name: str) -> set[int]:
    host = whole.host(name)
    return {port for address, port in allowed_listeners(whole, host) if address != "0.0.0.0"}


def test_exporters_listen_on_the_private_address_of_a_fleet_that_is_watched() -> None:
    whole = fleet("front", "gpu1", "data1", "watch1")
    assert ports(whole, "front") == {8200, 8201, 8300, 8301, 9100, 9113}
    assert ports(whole, "gpu1") == {8000, 8501, 9100, 9113, 9835}
    assert ports(whole, "data1") == {5432, 6379, 6380, 8432, 9100, 9121, 9187}
    assert ports(whole, "watch1") == {8432, 9100}


def test_without_a_monitoring_host_no_exporter_may_be_there() -> None:
    whole = fleet("front", "gpu1", "data1")
    assert ports(whole, "front") == {8200, 8201, 8300, 8301}
    assert ports(whole, "data1") == {5432, 6379, 6380, 8432}
