"""`ops remediate` against a remediator's host in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops.cli.remediate import app
from ops.errors import InputError
from ops.fleet.model import Fleet, Host
from ops.remedy import host as remote
from ops.remote.stream import Finished

ACTED = {"id": "r1", "at": "2026-11-26T03:00:00+00:00", "alert": "GpuFellOff on gpu1",
         "host": "gpu1", "gpu": 0, "action": "reboot_host", "verdict": "act", "code": "act",
         "reason": "x", "operation": "op-1", "outcome": "done", "why": "done",
         "seconds": 42.0}  # fmt: skip
SKIPPED = {**ACTED, "id": "r2", "verdict": "skip", "code": "cooldown", "outcome": None, "why": ""}
STUCK = {**ACTED, "outcome": "stuck", "why": "ops resume op-1"}
SHOWN = {"mode": "act", "paused": "", "open": [], "records": [ACTED, SKIPPED], "policy": {},
         "rules": {"GpuFellOff": [{"match": {}, "action": "reboot_host", "only": []}]}}  # fmt: skip


class Remote:
    """The remediator's host."""

    def __init__(self) -> None:
        self.shown: dict[str, Any] = dict(SHOWN)
        self.unit = "active"
        self.told: list[tuple[str, ...]] = []
        self.decisions = [{"alert": "a", "verdict": "act", "action": "drain", "code": "act",
                           "host": "gpu1", "reason": "because"}]  # fmt: skip

    def ask(self, _fleet: Fleet, *words: str) -> dict[str, Any]:
        self.told.append(words)
        return self.shown if words == ("show",) else {"decisions": self.decisions}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Remote:
    made = Remote()
    variables = {"remediation": {"mode": "act"}}
    watch = Host("watch", "10.0.0.1", frozenset({"monitoring"}), "10.0.0.1", variables=variables)
    monkeypatch.setattr("ops.fleet.load", lambda _: Fleet(Path("x"), "example.com", (watch,)))
    monkeypatch.setattr(remote, "ask", made.ask)
    monkeypatch.setattr(remote, "unit_state", lambda _: made.unit)
    monkeypatch.setattr(remote, "pause", lambda _, words: made.told.append(("pause", words)))
    monkeypatch.setattr(remote, "let_go_on", lambda _: made.told.append(("go on",)))
    return made


def ops(*words: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, [*words, *(() if words[0] == "-" else ("-i", "x"))])
    assert done.exit_code == status, done.output + repr(done.exception)
    return done.output


def test_status_is_well_while_all_is_as_the_inventory_wants_it(world: Remote) -> None:
    assert json.loads(ops("status", "--json"))["well"] is True
    assert "last action: reboot_host for GpuFellOff on gpu1: done" in ops("status")


@pytest.mark.parametrize(
    ("shown", "unit", "words"),
    [
        ({"paused": "jo: racks"}, "active", "paused: jo: racks"),
        ({}, "failed", "service failed"),
        ({"mode": "dry_run"}, "active", "the inventory says act"),
        ({"records": [STUCK]}, "active", "ops resume op-1"),
    ],
)  # fmt: skip
def test_status_says_what_is_not_as_it_should_be(
    world: Remote, shown: dict[str, Any], unit: str, words: str
) -> None:
    world.shown |= shown
    world.unit = unit
    assert words in ops("status", status=1)


def test_status_of_a_fleet_without_remediation_asks_nobody(
    world: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Host("watch", "10.0.0.1", frozenset({"monitoring"}), "10.0.0.1")
    monkeypatch.setattr("ops.fleet.load", lambda _: Fleet(Path("x"), "example.com", (watch,)))
    assert "off" in ops("status")
    assert world.told == []


def test_history_is_newest_first_and_can_leave_out_what_was_not_done(world: Remote) -> None:
    found = json.loads(ops("history", "--json"))["records"]
    assert [record["id"] for record in found] == ["r2", "r1"]
    found = json.loads(ops("history", "--acted", "--json"))["records"]
    assert [record["id"] for record in found] == ["r1"]
    table = ops("history")
    assert "2026-11-26" in table
    assert "op-1" in table


@pytest.mark.parametrize(("verdict", "status"), [("act", 0), ("dry_run", 0), ("skip", 1)])
def test_explain_tells_by_its_exit_status(world: Remote, verdict: str, status: int) -> None:
    world.decisions[0]["verdict"] = verdict
    said = ops("explain", "GpuXidReset", "--host", "gpu1", "--label", "xid=48", status=status)
    assert "because" in said
    assert world.told == [("explain", "GpuXidReset", "gpu1", "xid=48")]


def test_a_label_without_a_value_is_refused(world: Remote) -> None:
    done = CliRunner().invoke(app, ["explain", "A", "--host", "g", "--label", "xid", "-i", "x"])
    assert isinstance(done.exception, InputError)


def test_run_wants_dry_run(world: Remote) -> None:
    assert isinstance(CliRunner().invoke(app, ["run", "-i", "x"]).exception, InputError)
    assert json.loads(ops("run", "--dry-run", "--json"))["decisions"] == world.decisions
    world.decisions = []
    assert "no alert fires" in ops("run", "--dry-run")


def test_the_kill_switch_names_who_pulled_it(world: Remote) -> None:
    assert "moving racks" in ops("pause", "--why", "moving racks")
    assert world.told[-1][0] == "pause"
    world.shown["paused"] = "jo@desk: moving racks"
    assert "paused by jo@desk" in ops("resume")
    assert world.told[-1] == ("go on",)


@pytest.mark.parametrize(
    ("done", "kind", "words"),
    [
        (Finished(127, "", "not found"), InputError, "no remediator is laid down"),
        (Finished(2, "", "remediation.mode: wrong"), InputError, "remediation.mode"),
        (Finished(1, "", ""), Exception, "status 1"),
    ],
)
def test_what_the_program_says_is_told(
    monkeypatch: pytest.MonkeyPatch, done: Finished, kind: type[Exception], words: str
) -> None:
    monkeypatch.setattr(remote, "execute", lambda *_: done)
    watch = Host("watch", "127.0.0.1", frozenset({"monitoring"}), "127.0.0.1")
    with pytest.raises(kind, match=words):
        remote.ask(Fleet(Path("x"), "example.com", (watch,)), "show")
