"""Backups and restores as plans."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.backup.listing import Listing
from ops.backup.plan import Choices, Target, plan_backup, plan_restore
from ops.backup.steps import KINDS, statement
from ops.backup.survey import Survey
from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet, Host
from ops.operations.plan import Plan

GIB = 1 << 30
LISTING = Listing.parse(json.loads((Path(__file__).parent / "info.json").read_text()))
NOW = datetime(2026, 11, 26, 20, 0, tzinfo=UTC)
SYSTEM = LISTING.backups[-1].system
CONFIG = {
    "repository": "host", "repository_host": "watch", "repository_path": "/var/lib/pgbackrest",
    "postgres": {"data": "/var/lib/postgresql/15/main"},
}  # fmt: skip
SURVEY = Survey("data", CONFIG, LISTING, NOW, True, SYSTEM, GIB, 100 * GIB)

DESTROYED = replace(SURVEY, system=1, wal_receiver="watch")
"""A fresh host in the place of one whose commits waited for the other's disk."""


def host(name: str, *groups: str) -> Host:
    return Host(name=name, address="10.0.0.1", groups=frozenset(groups), private_address="")


FLEET = Fleet(
    Path("inventories/x"), "agent.example.com",
    (host("edge", "edge", "agent"), host("app", "agent"), host("data", "data"), host("watch")),
)  # fmt: skip


def kinds(plan: Plan) -> list[tuple[str, str]]:
    return [(step.kind.removeprefix("backup."), step.host) for step in plan.steps]


def restored(target: Target = Target(), survey: Survey = SURVEY, **choices: Any) -> Plan:  # noqa: B008
    return plan_restore(FLEET, survey, target, Choices(**choices))


def arguments(plan: Plan) -> list[str]:
    found: list[str] = next(s for s in plan.steps if s.kind == "backup.restore").values["arguments"]
    return found


def test_a_backup_runs_where_the_repository_is_and_ends_with_the_inventory() -> None:
    plan = plan_backup(SURVEY, ["data", "edge"], full=False, why="")
    assert kinds(plan) == [
        ("run", "watch"), ("store_files", "data"), ("store_files", "edge"),
        ("store_inventory", "data"),
    ]  # fmt: skip
    assert plan.steps[0].values == {"kind": "auto"}
    assert plan.warnings == ()


def test_a_repository_on_the_data_host_says_what_it_does_not_protect_from() -> None:
    survey = replace(SURVEY, config={**CONFIG, "repository": "posix", "repository_host": ""})
    plan = plan_backup(survey, ["data"], full=True, why="")
    assert kinds(plan)[0] == ("run", "data")
    assert plan.steps[0].values == {"kind": "full"}
    assert "lost with that host" in plan.warnings[0]


def test_a_backup_into_another_clusters_repository_is_refused_with_both_cures() -> None:
    with pytest.raises(OpsError, match="another cluster") as refused:
        plan_backup(replace(SURVEY, system=1), [], full=False, why="")
    assert "ops restore" in refused.value.cure


def test_the_app_stops_on_every_host_before_and_starts_after_the_restore() -> None:
    assert kinds(restored()) == [
        ("stop_app", "edge"), ("stop_app", "app"), ("flush", "data"), ("restore", "data"),
        ("put_back_files", "data"), ("start_app", "edge"), ("start_app", "app"),
        ("begin", "watch"),
    ]  # fmt: skip


def test_every_step_of_a_plan_has_its_work() -> None:
    plans = [
        restored(),
        restored(survey=DESTROYED),
        plan_backup(SURVEY, ["data"], full=False, why=""),
    ]
    assert {step.kind for plan in plans for step in plan.steps} == set(KINDS)


def test_a_fresh_host_has_nothing_to_archive_first_and_says_whose_cluster_goes() -> None:
    plan = restored(survey=replace(SURVEY, system=1))
    assert "flush" not in [kind for kind, _ in kinds(plan)]
    assert any("fresh host" in warning for warning in plan.warnings)


def test_what_was_received_and_not_archived_comes_along_to_a_fresh_host() -> None:
    plan = restored(survey=DESTROYED)
    brought = next(step for step in plan.steps if step.kind == "backup.bring_wal")
    assert (brought.host, brought.values) == ("watch", {"system": SYSTEM})
    assert plan.steps.index(brought) < [kind for kind, _ in kinds(plan)].index("restore")


@pytest.mark.parametrize(
    ("survey", "target"),
    [
        (replace(SURVEY, wal_receiver="watch"), Target()),
        (DESTROYED, Target.of(None, LISTING.backups[0].label)),
        (replace(DESTROYED, wal_receiver=""), Target()),
    ],
    ids=["the host lives and archives it", "a backup as it was", "nobody received any"],
)
def test_otherwise_nothing_is_brought(survey: Survey, target: Target) -> None:
    assert "bring_wal" not in [kind for kind, _ in kinds(restored(target, survey))]


def test_the_latest_is_all_that_was_archived() -> None:
    assert arguments(restored()) == ["--type=default", f"--set={LISTING.backups[-1].label}"]


def test_a_moment_is_recovered_from_the_backup_before_it() -> None:
    moment = LISTING.backups[0].ended + timedelta(seconds=2)
    assert arguments(restored(Target(moment))) == [
        "--type=time", "--target=" + moment.strftime("%Y-%m-%d %H:%M:%S.%f") + "+00:00",
        "--target-action=promote", f"--set={LISTING.backups[0].label}",
    ]  # fmt: skip


def test_a_backup_is_recovered_to_its_own_end() -> None:
    label = LISTING.backups[0].label
    assert "--type=immediate" in arguments(restored(Target.of(None, label)))


def test_latest_as_a_label_is_no_label_and_two_targets_are_refused() -> None:
    assert Target.of(None, "latest") == Target()
    with pytest.raises(InputError, match="--to and --backup"):
        Target.of(NOW, "20261126-192244F")


def test_no_room_is_refused_before_anything_stops_and_in_place_needs_less() -> None:
    small = replace(SURVEY, free_bytes=1 << 20)
    with pytest.raises(OpsError, match="restore needs") as refused:
        restored(survey=small)
    assert "--in-place" in refused.value.cure
    plan = restored(survey=small, in_place=True)
    assert any("no way back" in warning for warning in plan.warnings)


def test_the_end_is_told_as_a_point_in_time_and_a_duration() -> None:
    found = {"recovered_to": 1795721542.2, "seconds": 5.52, "timeline": 2}
    assert statement(found) == (
        "restored in 6 s; the last transaction that is back was committed at "
        "2026-11-26 19:32:22 UTC"
    )
    assert "nothing was committed" in statement({"recovered_to": 0, "seconds": 1})
