"""Faults are written down before they are begun, and ended by whoever comes, at any time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.chaos import inject, keeper, record
from ops.chaos.fault import fault_named
from ops.chaos.record import Record
from ops.chaos.step import Shell, Step
from ops.chaos.target import Target
from ops.errors import InputError, OpsError, RemoteError
from ops.lab import paths
from ops.lab.fleet_plan import LabPlan

LAB = LabPlan("t1", 7, "bookworm", 4)
UNIT = "nginx.service"


class Hosts:
    """Stands for SSH: remembers the steps, and what was on record at each."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.on_record: list[list[Record]] = []
        self.unreachable: set[str] = set()

    def perform(self, lab: LabPlan, step: Step) -> str:
        if step.host in self.unreachable:
            raise RemoteError(f"{step.host} does not answer")
        self.steps.append(str(step))
        self.on_record.append(record.load(lab.name))
        looks = isinstance(step, Shell) and "list-units" in step.script
        return f"{UNIT}\n" if looks else ""


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    for module in (paths, record, keeper):
        monkeypatch.setattr(module, "STATE", tmp_path)
    LAB.paths.root.mkdir(parents=True)
    made = Hosts()
    monkeypatch.setattr(inject, "perform", made.perform)
    yield made


def new(name: str, host: str = "node1", what: str = "", seconds: float | None = None) -> Record:
    return inject.wanted(LAB, fault_named(name), Target(host, what), None, seconds)


def test_a_fault_is_on_record_before_it_is_begun(hosts: Hosts) -> None:
    inject.begin(LAB, new("hang", what="ngin*"))
    (found,) = record.load("t1")
    assert (found.fault, found.host, found.found) == ("hang", "node1", UNIT)
    assert hosts.on_record[-1] == [found]


def test_what_is_over_at_once_leaves_no_record(hosts: Hosts) -> None:
    inject.begin(LAB, new("kill", what=UNIT))
    assert record.load("t1") == []
    with pytest.raises(InputError, match="over at once"):
        new("kill", what=UNIT, seconds=10)


def test_injected_again_it_is_one_fault_that_remembers_what_it_found(hosts: Hosts) -> None:
    inject.begin(LAB, new("stop", what="ngin*"))
    first = record.load("t1")
    inject.begin(LAB, new("stop", what="ngin*"))
    assert record.load("t1") == first, "no unit matches the pattern any more, and none is asked for"
    assert sum("list-units" in step for step in hosts.steps) == 1


def test_a_fault_that_could_not_be_begun_stays_on_record_to_be_ended(hosts: Hosts) -> None:
    hosts.unreachable = {"node1"}
    with pytest.raises(OpsError):
        inject.begin(LAB, new("acme-down", "node1"))
    hosts.unreachable = set()
    assert inject.end(LAB, record.load("t1")) == []
    assert record.load("t1") == []


def test_one_that_cannot_be_ended_keeps_no_other_from_it(hosts: Hosts) -> None:
    inject.begin(LAB, new("hang", "node2", UNIT))
    inject.begin(LAB, new("hang", "node1", UNIT))
    hosts.unreachable = {"node2"}
    ((left, _),) = inject.end(LAB, record.load("t1"))
    assert left.host == "node2"
    assert [found.host for found in record.load("t1")] == ["node2"]
    hosts.unreachable = set()
    assert inject.end(LAB, record.load("t1")) == []
    assert inject.end(LAB, []) == []


def test_the_network_is_remade_without_the_fault_that_ends(hosts: Hosts) -> None:
    inject.begin(LAB, new("net-cut", "node2"))
    inject.end(LAB, record.load("t1"))
    assert hosts.on_record == [[record.with_record([], hosts.on_record[0][0])[0]], []]


def test_end_means_all_or_those_of_a_name(hosts: Hosts) -> None:
    records = [Record("hang", "node1", UNIT), Record("net-cut", "node2")]
    assert inject.matching(records, "all") == records
    assert inject.matching(records, "net-cut") == records[1:]
    assert inject.matching(records, "power-off") == []
    with pytest.raises(InputError):
        inject.matching(records, "explode")


def test_the_keeper_ends_a_fault_at_its_time_and_leaves(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAB.save()
    monkeypatch.setattr(keeper, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(keeper, "ensure", lambda _: None)
    inject.begin(LAB, new("hang", "node1", UNIT, seconds=0.2))
    inject.begin(LAB, new("stop", "node3", UNIT))
    began = time.monotonic()
    keeper.main("t1")
    assert 0.1 < time.monotonic() - began < 5
    assert [found.fault for found in record.load("t1")] == ["stop"]
    assert "SIGCONT" in hosts.steps[-1]


def test_a_damaged_file_is_named_with_its_cure(hosts: Hosts) -> None:
    record.path("t1").write_text("[{")
    with pytest.raises(OpsError, match="cannot be read") as problem:
        record.load("t1")
    assert problem.value.cure
