"""Which faults there are, what they are done to, and which steps begin and end them."""

from __future__ import annotations

import pytest

from ops.chaos import disk, network, plan
from ops.chaos.fault import FAULTS, HOST_UNIT, amount_of, fault_named
from ops.chaos.inject import ordered, steps
from ops.chaos.record import Record
from ops.chaos.step import Act, Shell
from ops.chaos.target import Target, read_target
from ops.errors import InputError
from ops.lab.fleet_plan import LabPlan

LAB = LabPlan("t1", 7, "bookworm", 4)
UNIT = "engine@demo-blue.service"


def test_every_fault_has_steps_and_every_one_that_lasts_an_end() -> None:
    assert set(plan.BEGIN) == {fault.name for fault in FAULTS}
    assert set(plan.END) == {fault.name for fault in FAULTS if not fault.momentary}
    assert set(plan.UNIT_FAULTS) == {f.name for f in FAULTS if f.target == HOST_UNIT}


@pytest.mark.parametrize(
    ("name", "words", "target"),
    [
        ("kill", "node2:engine@demo-*", Target("node2", "engine@demo-*")),
        ("net-cut", "node1", Target("node1")),
        ("net-cut", "node1:node3", Target("node1", "node3")),
        ("disk-full", "node3:/var/lib/postgresql", Target("node3", "/var/lib/postgresql")),
        ("cert-expired", "", Target("node1")),
        ("acme-down", "", Target("outside")),
        ("mirror", "mid-sync", Target("outside", "mid-sync")),
        ("gpu-xid", "node2:0", Target("node2", "0")),
    ],
)
def test_a_target_is_read_in_its_faults_form(name: str, words: str, target: Target) -> None:
    assert read_target(fault_named(name), words, LAB) == target


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kill", ""),
        ("kill", "node1"),
        ("kill", "node1:"),
        ("kill", "node9:nginx.service"),
        ("kill", "node1:nginx; reboot"),
        ("power-off", "node1:nginx.service"),
        ("net-cut", "node1:node1"),
        ("net-cut", "node1:elsewhere"),
        ("disk-full", "node1:/var/../etc"),
        ("disk-full", "node1:/"),
        ("mirror", "2026-06"),
        ("gpu-lost", "node2:first"),
    ],
)
def test_a_target_that_does_not_fit_is_refused_with_the_form(name: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        read_target(fault_named(name), words, LAB)
    assert refused.value.exit_code == 2
    assert refused.value.cure


def test_a_fault_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError) as refused:
        fault_named("explode")
    assert "net-cut" in refused.value.cure


def test_an_amount_is_bounded_and_only_for_faults_that_know_one() -> None:
    assert amount_of(fault_named("net-loss"), None) == 10
    assert amount_of(fault_named("net-loss"), 99) == 99
    assert amount_of(fault_named("kill"), None) is None
    for name, amount in (("net-loss", 100), ("net-loss", 0), ("kill", 3)):
        with pytest.raises(InputError):
            amount_of(fault_named(name), amount)


def test_a_unit_fault_looks_for_units_first_and_acts_on_those_it_found() -> None:
    new = Record("hang", "node2", "engine@demo-*")
    look, act = steps(new)
    assert isinstance(look, Shell)
    assert isinstance(act, Shell)
    assert "exit 4" in look.script
    found = Record("hang", "node2", "engine@demo-*", found=UNIT)
    assert plan.begin(found) == [Shell("node2", f"systemctl kill --signal=SIGSTOP {UNIT}")]
    assert plan.end(found) == [Shell("node2", f"systemctl kill --signal=SIGCONT {UNIT} || true")]


def test_a_stopped_unit_is_started_by_its_name_as_a_pattern_finds_no_stopped_one() -> None:
    found = Record("stop", "node2", "engine@demo-*", found=f"{UNIT} nginx.service")
    assert plan.end(found) == [Shell("node2", f"systemctl start {UNIT} nginx.service")]


def test_what_is_momentary_has_no_end() -> None:
    assert plan.end(Record("kill", "node1", UNIT)) == []
    assert plan.end(Record("power-cut", "node1")) == []


def test_the_mirror_goes_back_to_the_state_that_was_found() -> None:
    broken = Record("mirror", "outside", "gone", found="2026-11")
    assert plan.begin(broken) == [Act("mirror", "outside", ("gone",))]
    assert plan.end(broken) == [Act("mirror", "outside", ("2026-11",))]


def test_faults_of_reach_end_before_those_that_need_the_host() -> None:
    records = [
        Record("hang", "node2", UNIT, begun=1),
        Record("power-off", "node2", begun=3),
        Record("stop", "node2", UNIT, begun=2),
        Record("net-cut", "node2", begun=4),
    ]
    assert [r.fault for r in ordered(records)] == ["net-cut", "power-off", "stop", "hang"]


def test_the_network_is_made_from_all_faults_and_is_gone_with_the_last() -> None:
    assert network.ruleset(LAB, []) == (
        "table bridge rackhand_chaos_t1 {}\ndelete table bridge rackhand_chaos_t1\n"
    )
    rules = network.ruleset(
        LAB,
        [
            Record("net-cut", "node2"),
            Record("net-loss", "node1", "node3", amount=20),
            Record("hang", "node2", UNIT),
        ],
    )
    assert rules.count("ip saddr 10.77.7.12 drop") == 3, "forward, input and output"
    assert rules.count("ip daddr 10.77.7.12 drop") == 3
    between = "ip saddr 10.77.7.13 ip daddr 10.77.7.11 numgen random mod 100 < 20 drop"
    assert rules.count(between) == 3


def test_a_delay_is_netem_or_a_link_on_which_a_full_packet_takes_as_long() -> None:
    netem, narrow = network.delays(50)
    assert netem == ["netem", "delay", "50ms"]
    assert narrow[:3] == ["tbf", "rate", "240kbit"], "1500 bytes in 50 ms"


def test_a_disk_is_filled_only_inside_a_file_system_of_its_own() -> None:
    script = disk.fill("/var/lib/postgresql")
    mounted = script.index("systemctl --quiet enable --now chaos-disk-var-lib-postgresql.service")
    assert script.index("mountpoint -q") < mounted < script.index("dd if=/dev/zero")
    assert 'mv "$at.chaos-new" "$at"' in disk.free("/var/lib/postgresql")
