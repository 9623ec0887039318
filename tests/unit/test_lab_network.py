"""A lab's network is made and taken away without a trace on the machine's own."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ops.lab import network
from ops.lab.fleet_plan import LabPlan


class Machine:
    """Answers the programs that the lab runs, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, object] = {}

    def run(self, command: list[str], **options: object) -> CompletedProcess[str]:
        self.asked.append(" ".join(command))
        answer = json.dumps(self.answers.get(" ".join(command), []))
        return CompletedProcess(command, 0, answer, "")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    machine = Machine()
    monkeypatch.setattr(network, "run", machine.run)
    monkeypatch.setattr(network, "STATE", tmp_path)
    monkeypatch.setattr("ops.lab.paths.STATE", tmp_path)
    monkeypatch.setattr(network, "MACHINE_LOCK", tmp_path / "lock")
    monkeypatch.setattr(network, "FORWARDING", tmp_path / "ip_forward")
    monkeypatch.setattr(network, "FORWARDING_WAS_OFF", tmp_path / "was_off")
    monkeypatch.setattr(network, "_link_exists", lambda name: False)
    return machine


@pytest.mark.parametrize("before", ["0", "1"])
def test_forwarding_is_put_back_when_the_last_lab_goes(machine: Machine, before: str) -> None:
    network.FORWARDING.write_text(before)
    first, second = (network.allot(name, "bookworm", 1) for name in ("first", "second"))
    for plan in (first, second):
        network.ensure_network(plan)
    network.remove_network(first)
    first.paths.wanted.unlink()
    assert network.FORWARDING.read_text() == "1"
    network.remove_network(second)
    assert network.FORWARDING.read_text() == before


def test_two_labs_never_share_addresses(machine: Machine) -> None:
    machine.answers["ip -json route show"] = [{"dst": "10.77.2.0/24"}]
    assert [network.allot(name, "bookworm", 1).index for name in ("a", "b", "c")] == [1, 3, 4]


def test_a_firewall_that_drops_forwarded_packets_is_named_with_the_cure(machine: Machine) -> None:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward"}
    machine.answers["nft -j list chains"] = {"nftables": [{"chain": chain | {"policy": "drop"}}]}
    obstacle = network.forwarding_obstacle(LabPlan("a", 1, "bookworm", 1))
    assert obstacle is not None
    assert "ip filter FORWARD" in obstacle
    assert "iptables -I FORWARD -i rh-1 -j ACCEPT" in obstacle
    machine.answers["nft -j list chains"] = {"nftables": [{"chain": chain | {"policy": "accept"}}]}
    assert network.forwarding_obstacle(LabPlan("a", 1, "bookworm", 1)) is None


def test_a_closed_lab_reaches_its_bridge_and_stays_closed_until_it_is_opened(
    machine: Machine,
) -> None:
    network.FORWARDING.write_text("1")
    plan = network.allot("closed", "bookworm", 1)
    assert "masquerade" in network.rules(plan, network.is_closed(plan))
    network.close(plan)
    network.ensure_network(plan)
    walls = network.rules(plan, network.is_closed(plan))
    assert "masquerade" not in walls
    assert f'iifname "{plan.bridge}" oifname != "{plan.bridge}" drop' in walls
    assert f"ip daddr != {plan.gateway} drop" in walls
    network.reopen(plan)
    assert "masquerade" in network.rules(plan, network.is_closed(plan))
