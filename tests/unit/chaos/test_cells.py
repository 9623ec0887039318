"""The matrix of tests/lab names only faults, targets and moments that there are."""

from __future__ import annotations

import pytest
from cells import FOUR_HOSTS, IN_FLIGHT, ONE_HOST, Cell

from ops.chaos.fault import fault_named
from ops.chaos.target import read_target
from ops.lab.fleet_plan import LabPlan

MOMENTS = {"idle", "load", "upgrade", "restart", "site", "backup"}
ALL = [(1, cell) for cell in ONE_HOST] + [(4, cell) for cell in FOUR_HOSTS]


@pytest.mark.parametrize(("hosts", "cell"), ALL, ids=lambda value: str(value))
def test_a_cell_can_be_struck(hosts: int, cell: Cell) -> None:
    fault = fault_named(cell.fault)
    read_target(fault, cell.target, LabPlan("t1", 7, "bookworm", hosts))
    assert cell.moment in MOMENTS
    assert fault.momentary == (cell.hold == 0)
    assert cell.flying is None or 0 <= cell.flying <= IN_FLIGHT


def test_no_cell_is_there_twice() -> None:
    names = [(hosts, str(cell)) for hosts, cell in ALL]
    assert len(names) == len(set(names))


def test_every_moment_is_struck_on_both_labs() -> None:
    assert {cell.moment for cell in ONE_HOST} == MOMENTS
    assert {cell.moment for cell in FOUR_HOSTS} == MOMENTS - {"idle"}
