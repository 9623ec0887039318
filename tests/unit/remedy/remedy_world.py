"""A fleet, alerts and records for the tests of remediation; all of it in memory but the records."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ops.fleet.model import Fleet, Host, Model
from ops.operations.journal import Operation
from ops.operations.plan import Plan, Step
from ops.operations.run import Reporter
from ops.remedy.alert import Alert
from ops.remedy.decision import FleetState, HostView
from ops.remedy.policy import Action, Policy, read_policy
from ops.remedy.records import Outcome, Record, Records, Verdict
from ops.remedy.remediator import Remediator, Tally

NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)  # a Thursday
DEMO = Model("demo", "hf://x/demo", "r1", 0)
FLEET = Fleet(
    Path("inventory"),
    "example.com",
    tuple(
        Host(name, "10.0.0.1", frozenset({group}), "10.0.0.1", (DEMO,))
        for name, group in (("gpu1", "gpu"), ("gpu2", "gpu"), ("gpu3", "gpu"), ("db", "data"))
    ),
)
SERVES = HostView(frozenset({"demo"}), frozenset({"demo"}))
ALL_SERVE = FleetState(dict.fromkeys(("gpu1", "gpu2", "gpu3"), SERVES))


class Killed(BaseException):
    """SIGKILL: nothing of ours runs after it."""


def alert(name: str = "GpuFellOff", host: str = "gpu1", **more: Any) -> Alert:
    labels = {"alertname": name, "host": host, "gpu": "0", "xid": "79", **more.pop("labels", {})}
    return Alert(
        status=more.pop("status", "firing"),
        labels={k: v for k, v in labels.items() if v},
        startsAt=more.pop("started", NOW),
        fingerprint=more.pop("fingerprint", f"{name}{host}".encode().hex()[:64]),
    )


def policy(mode: str = "act", **more: Any) -> Policy:
    return read_policy({"mode": mode, **more})


def record(minutes_ago: float = 60.0, **more: Any) -> Record:
    at = NOW - timedelta(minutes=minutes_ago)
    values: dict[str, Any] = {
        "id": f"r{minutes_ago:.0f}", "at": at, "key": "other", "cause": alert().cause,
        "alert": "told", "host": "gpu1", "gpu": 0, "action": Action.REBOOT_HOST,
        "verdict": Verdict.ACT, "code": "act", "reason": "", "outcome": Outcome.DONE, "ended": at,
    }  # fmt: skip
    return Record(**{**values, **more})


@dataclass
class World:
    """The fleet's journal, Alertmanager, and at which instant the process dies."""

    state: FleetState = ALL_SERVE
    fires: bool | None = None
    operations: dict[str, tuple[Plan, list[dict[str, Any]]]] = field(default_factory=dict)
    fails: BaseException | None = None
    held: bool = False
    die_at: int = -1
    ticks: int = 0
    reboots: int = 0
    looks: int = 0

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self.die_at:
            raise Killed

    def look(self) -> FleetState:
        self.looks += 1
        return self.state

    def still_fires(self, _alert: Alert) -> bool | None:
        return self.fires

    def plan(self, record: Record, _alert: Alert, why: str) -> Plan:
        self.tick()
        step = Step("host.reboot", record.host, "reboot")
        return Plan(str(record.action), record.host, (), (step,), why=why)

    def begin(self, plan: Plan, reporter: Reporter) -> Operation:
        self.tick()
        if self.fails:
            raise self.fails
        name = f"op-{len(self.operations)}"
        self.operations[name] = (plan, [{"event": "taken"}])
        self.tick()
        reporter.opened(self.operation(name), "begin")
        return self.go_on(name)

    def go_on(self, name: str) -> Operation:
        _, entries = self.operations[name]
        if not any(entry["event"] == "done" for entry in entries):
            entries.append({"event": "begin", "step": 0})
            self.tick()
            self.reboots += 1
            entries.append({"event": "done", "step": 0})
        self.tick()
        entries.append({"event": "end", "back": False})
        self.tick()
        return self.operation(name)

    def operation(self, name: str) -> Operation:
        plan, entries = self.operations[name]
        return Operation(name, plan, tuple(entries), self.held)

    def find(self, words: str) -> Operation | None:
        found = [name for name, (plan, _) in self.operations.items() if words in plan.why]
        return self.operation(found[-1]) if found else None

    def resume(self, name: str, reporter: Reporter) -> Operation:
        reporter.opened(self.operation(name), "resume")
        return self.go_on(name)


@dataclass
class Clock:
    """The time, that a test moves on."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_minutes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


def remediator(folder: Path, world: World, rules: Policy, clock: Clock) -> Remediator:
    """As the service makes it when it starts."""
    records = Records(folder / "records/records.jsonl")
    return Remediator(FLEET, rules, records, folder, world, Tally(), clock)


def records(folder: Path) -> tuple[Record, ...]:
    return Records(folder / "records/records.jsonl").all
