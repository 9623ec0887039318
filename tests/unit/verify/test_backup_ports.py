"""Which hosts of a fleet listen for each other's backups."""

from pathlib import Path
from typing import Any

from ops.fleet.model import Fleet, Host
from ops.verify.ports import backup_ports


def fleet(*named: tuple[str, set[str]], **variables: Any) -> Fleet:
    hosts = tuple(
        Host(name, "10.0.0.1", frozenset(groups), "10.0.0.1", variables=variables)
        for name, groups in named
    )
    return Fleet(Path("x"), "agent.example.com", hosts)


def listening(found: Fleet) -> dict[str, set[int]]:
    return {host.name: ports for host in found.hosts if (ports := backup_ports(found, host))}


LAYOUT = (("edge", {"edge", "agent"}), ("gpu", {"gpu"}), ("data", {"data", "monitoring"}))


def test_one_host_listens_for_nobody() -> None:
    assert listening(fleet(("all", {"data", "gpu", "edge"}))) == {}


def test_the_data_host_and_that_of_the_repository_listen() -> None:
    assert listening(fleet(*LAYOUT)) == {"gpu": {8432}, "data": {8432}}
    watched = fleet(*LAYOUT[:2], ("data", {"data"}), ("watch", {"monitoring"}))
    assert set(listening(watched)) == {"data", "watch"}


def test_the_inventory_may_name_another_host_and_port_or_no_host() -> None:
    assert listening(fleet(*LAYOUT, backup_repository_host="edge", backup_port=9000)) == {
        "edge": {9000}, "data": {9000},
    }  # fmt: skip
    assert listening(fleet(*LAYOUT, backup_repository="s3")) == {}
