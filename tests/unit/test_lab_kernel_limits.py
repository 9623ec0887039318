"""Limits of the kernel that labs share are told before a host hangs by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.lab import kernel_limits
from ops.lab.fleet_plan import LabPlan


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("ops.lab.network.STATE", tmp_path)
    monkeypatch.setattr("ops.lab.paths.STATE", tmp_path)
    monkeypatch.setattr(kernel_limits, "INOTIFY_INSTANCES", tmp_path / "max_user_instances")
    (tmp_path / "max_user_instances").write_text("128\n")
    return tmp_path / "max_user_instances"


def test_a_lab_that_fits_is_not_spoken_of(limit: Path) -> None:
    assert kernel_limits.inotify_obstacle(LabPlan("one", 1, "bookworm", 4)) is None


def test_hosts_of_all_labs_count_together_and_the_cure_is_enough_for_them(limit: Path) -> None:
    for number in range(1, 5):
        LabPlan(f"lab{number}", number, "bookworm", 4).save()
    told = kernel_limits.inotify_obstacle(LabPlan("last", 5, "bookworm", 4))
    assert told is not None
    assert "is 128, and the 25 hosts" in told
    limit.write_text(told.rpartition("=")[2])
    assert kernel_limits.inotify_obstacle(LabPlan("last", 5, "bookworm", 4)) is None
