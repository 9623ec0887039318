"""The remediator's life: told twice, killed at every instant, paused, locked out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from remedy_world import NOW, Clock, Killed, World, alert, policy, records, remediator

from ops.errors import OpsError, RemoteError
from ops.operations.keeper import LockedError, LockLostError
from ops.operations.run import PausedError, RolledBackError, StuckError
from ops.remedy.policy import Policy
from ops.remedy.records import Outcome, Verdict

ACT = policy(limits={"per_host_per_hour": 9, "per_host_per_day": 9})
INSTANTS = 7
"""Of `World.tick`, from the plan to the end of the operation."""


def handled(folder: Path, world: World, rules: Policy = ACT, clock: Clock | None = None) -> None:
    remediator(folder, world, rules, clock or Clock()).handle([alert()])


def test_an_alert_leads_to_an_operation_and_a_whole_record(tmp_path: Path) -> None:
    world = World()
    handled(tmp_path, world)
    (found,) = records(tmp_path)
    assert (found.verdict, found.outcome, found.operation) == (Verdict.ACT, Outcome.DONE, "op-0")
    assert world.operations["op-0"][0].why == f"GpuFellOff on gpu1 (gpu 0, xid 79) [{found.id}]"
    assert found.as_record()["host"] == "gpu1"
    assert world.ticks == INSTANTS - 1


def test_the_same_occurrence_told_again_is_done_once(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    for _ in range(3):
        handled(tmp_path, world, clock=clock)
        clock.pass_minutes(90)
    assert world.reboots == 1
    assert len(records(tmp_path)) == 1


def test_the_same_alert_that_fires_anew_is_another_occurrence(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    handled(tmp_path, world, clock=clock)
    clock.pass_minutes(90)
    remediator(tmp_path, world, ACT, clock).handle([alert(started=clock.now)])
    assert world.reboots == 2


def test_after_two_reboots_it_says_replace_and_only_once(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    for _ in range(4):
        remediator(tmp_path, world, ACT, clock).handle([alert(started=clock.now)] * 2)
        clock.pass_minutes(90)
    assert world.reboots == 2
    assert [r.verdict for r in records(tmp_path)] == ["act", "act", "replace", "replace"]


@pytest.mark.parametrize("instant", range(1, INSTANTS))
def test_killed_at_any_instant_it_reboots_once_and_the_record_ends(
    tmp_path: Path, instant: int
) -> None:
    world = World(die_at=instant)
    with pytest.raises(Killed):
        handled(tmp_path, world)
    (begun,) = records(tmp_path)
    assert begun.open, "the record was on the disk before anything was done"
    again = remediator(tmp_path, world, ACT, Clock())
    again.recover()
    (found,) = records(tmp_path)
    assert found.outcome == (Outcome.NOT_BEGUN if instant < 3 else Outcome.DONE)
    again.handle([alert()])  # Alertmanager tells it again
    assert world.reboots == 1
    assert all(not r.open for r in records(tmp_path))


def test_killed_while_it_wrote_the_decision_it_decides_again(tmp_path: Path) -> None:
    world = World()
    handled(tmp_path, world, policy("dry_run"))
    file = tmp_path / "records/records.jsonl"
    file.write_bytes(file.read_bytes()[:-20])  # a power loss in the middle of the line
    handled(tmp_path, world)
    (found,) = records(tmp_path)
    assert (found.verdict, world.reboots) == (Verdict.ACT, 1)


@pytest.mark.parametrize("killed_again_at", range(4, INSTANTS))
def test_killed_again_while_it_recovers(tmp_path: Path, killed_again_at: int) -> None:
    world = World(die_at=3)
    with pytest.raises(Killed):
        handled(tmp_path, world)
    world.die_at = killed_again_at
    with suppress(Killed):
        remediator(tmp_path, world, ACT, Clock()).recover()
    remediator(tmp_path, world, ACT, Clock()).recover()
    assert [r.outcome for r in records(tmp_path)] == [Outcome.DONE]
    assert world.reboots == 1


def test_what_was_begun_is_abandoned_with_its_cure_where_it_may_not_go_on(tmp_path: Path) -> None:
    world = World(die_at=4)
    with pytest.raises(Killed):
        handled(tmp_path, world)
    (tmp_path / "paused").write_text("jo: no more\n")
    remediator(tmp_path, world, ACT, Clock()).recover()
    (found,) = records(tmp_path)
    assert found.outcome == Outcome.ABANDONED
    assert "ops resume op-0" in found.why
    assert world.reboots == 0


def test_what_somebody_else_works_on_is_left_to_them(tmp_path: Path) -> None:
    world = World(die_at=4)
    with pytest.raises(Killed):
        handled(tmp_path, world)
    world.held = True
    remediator(tmp_path, world, ACT, Clock()).recover()
    assert records(tmp_path)[0].open
    world.operations["op-0"][1].append({"event": "end", "back": True})
    remediator(tmp_path, world, ACT, Clock()).recover()
    assert records(tmp_path)[0].outcome == Outcome.ROLLED_BACK
    assert world.reboots == 0


def test_nothing_else_begins_while_a_record_is_open(tmp_path: Path) -> None:
    world = World(fails=LockLostError("the line broke"))
    handled(tmp_path, world)
    world.fails = None
    remediator(tmp_path, world, ACT, Clock()).handle([alert(host="gpu2")])
    assert len(records(tmp_path)) == 1
    assert world.operations == {}


def test_a_keeper_that_is_away_is_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(die_at=4)
    with pytest.raises(Killed):
        handled(tmp_path, world)
    again = remediator(tmp_path, world, ACT, Clock())

    def away(_words: str) -> None:
        raise RemoteError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(world, "find", away)
        again.recover()
    assert records(tmp_path)[0].open
    again.recover()
    assert records(tmp_path)[0].outcome == Outcome.DONE


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (LockedError("jo is at work"), Outcome.BUSY),
        (RolledBackError("did not boot"), Outcome.ROLLED_BACK),
        (StuckError("nor came back"), Outcome.STUCK),
        (OpsError("has no engine"), Outcome.FAILED),
    ],
)
def test_each_end_of_an_operation_is_recorded(
    tmp_path: Path, error: OpsError, outcome: Outcome
) -> None:
    handled(tmp_path, World(fails=error))
    (found,) = records(tmp_path)
    assert (found.outcome, found.why) == (outcome, error.message)


def test_locked_out_it_tries_again_when_it_is_told_again(tmp_path: Path) -> None:
    world, clock = World(fails=LockedError("jo is at work")), Clock()
    handled(tmp_path, world, clock=clock)
    world.fails = None
    for _ in range(3):
        clock.pass_minutes(4)
        handled(tmp_path, world, clock=clock)
    told = [(r.code, r.outcome) for r in records(tmp_path)]
    assert told == [("act", Outcome.BUSY), ("busy", None), ("act", Outcome.DONE)]


def test_a_fault_of_ours_is_recorded_once_and_holds_up_no_other_alert(tmp_path: Path) -> None:
    world = World(fails=KeyError("slots"))
    remediator(tmp_path, world, ACT, Clock()).handle([alert(), alert(host="gpu2"), alert()])
    assert [(r.host, r.outcome) for r in records(tmp_path)] == [
        ("gpu1", Outcome.FAILED),
        ("gpu2", Outcome.FAILED),
    ]


def test_a_fleet_that_cannot_be_looked_at_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    monkeypatch.setattr(world, "look", lambda: {}["no"])
    handled(tmp_path, world)
    assert records(tmp_path) == ()


def test_told_to_end_it_leaves_the_record_open_for_its_next_start(tmp_path: Path) -> None:
    with pytest.raises(PausedError):
        handled(tmp_path, World(fails=PausedError("stopped before step 2")))
    assert records(tmp_path)[0].open


def test_a_silenced_alert_leads_to_nothing(tmp_path: Path) -> None:
    world = World(fires=False)
    handled(tmp_path, world)
    assert (records(tmp_path), world.reboots) == ((), 0)


def test_paused_it_says_so_once_and_goes_on_when_it_may(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    (tmp_path / "paused").write_text("jo: moving racks")
    for _ in range(3):
        handled(tmp_path, world, clock=clock)
        clock.pass_minutes(1)
    assert [(r.code, r.verdict) for r in records(tmp_path)] == [("paused", "skip")]
    assert world.looks == 0
    (tmp_path / "paused").unlink()
    handled(tmp_path, world, clock=clock)
    assert world.reboots == 1


def test_a_dry_run_acts_on_nothing(tmp_path: Path) -> None:
    world = World()
    for _ in range(2):
        handled(tmp_path, world, policy("dry_run"))
    assert [r.verdict for r in records(tmp_path)] == ["dry_run"]
    assert (world.ticks, world.operations) == (0, {})


def test_the_rate_limit_holds_and_is_recorded(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    for minute in (0, 20, 40):
        clock.now = NOW
        clock.pass_minutes(minute)
        remediator(tmp_path, world, policy(), clock).handle([alert(started=clock.now)])
    assert [r.code for r in records(tmp_path)] == ["act", "host_hour", "host_hour"]
    assert world.reboots == 1
