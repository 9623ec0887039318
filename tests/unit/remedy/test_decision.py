"""The table of decisions: one line a reason, in the order in which reasons count."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from remedy_world import ALL_SERVE, NOW, SERVES, alert, policy, record

from ops.remedy.alert import Alert
from ops.remedy.decision import Decision, FleetState, HostView, decide
from ops.remedy.policy import DEFAULTS, Action, Policy
from ops.remedy.records import Outcome, Record, Verdict

DRAINED = replace(SERVES, serving=frozenset(), drained="maintenance, by jo")
ALONE = FleetState({"gpu1": SERVES})
IDLE = HostView(frozenset({"demo"}))


def fleet(**views: HostView) -> FleetState:
    return FleetState({**ALL_SERVE.hosts, **views})


def decided(
    what: Alert | None = None,
    rules: Policy | None = None,
    history: tuple[Record, ...] = (),
    state: FleetState = ALL_SERVE,
    paused: str = "",
) -> Decision:
    return decide(what or alert(), rules or policy(), history, state, NOW, paused=paused)


@pytest.mark.parametrize(
    ("name", "labels", "action"),
    [
        ("GpuFellOff", {}, "reboot_host"),
        *(("GpuXidReset", {"xid": xid}, "reset_gpu") for xid in ("48", "95", "119")),
        ("GpuXidContained", {"xid": "94"}, "restart_engine"),
        ("GpuRecoveryAction", {"recovery_action": "1"}, "reset_gpu"),
        ("GpuRecoveryAction", {"recovery_action": "4"}, "reset_gpu"),
        ("GpuRecoveryAction", {"recovery_action": "2"}, "reboot_host"),
        ("GpuEccUncorrected", {}, "reset_gpu"),
        ("EngineStalled", {"model": "demo"}, "restart_engine"),
    ],
)
def test_each_alert_of_the_defaults_has_its_action(
    name: str, labels: dict[str, str], action: str
) -> None:
    found = decided(alert(name, labels=labels))
    assert (found.verdict, found.action, found.code) == (Verdict.ACT, action, "act")


@pytest.mark.parametrize("asked", ["0", "3", "", "12", "1 4"])
def test_a_recovery_that_is_no_reset_and_no_reboot_leads_to_nothing(asked: str) -> None:
    assert decided(alert("GpuRecoveryAction", labels={"recovery_action": asked})).code == "no_rule"


def test_no_alert_that_only_warns_has_an_action() -> None:
    assert set(DEFAULTS) == {"GpuFellOff", "GpuXidReset", "GpuXidContained", "GpuRecoveryAction",
                             "GpuEccUncorrected", "EngineStalled"}  # fmt: skip


WINDOW = [{"start": "01:00", "end": "02:00"}]
REASONS: list[tuple[str, dict[str, Any]]] = [
    ("resolved", {"what": alert(status="resolved")}),
    ("no_rule", {"what": alert("Watchdog")}),
    ("no_rule", {"rules": policy(alerts={"GpuFellOff": "none"})}),
    ("no_rule", {"rules": policy(alerts={"GpuFellOff": []})}),
    ("no_host", {"what": alert(host="")}),
    ("no_host", {"what": alert(host="db")}),
    ("no_host", {"what": alert(host="../../etc")}),
    ("only", {"rules": policy(alerts={"GpuFellOff": {"action": "drain", "only": ["gpu2"]}})}),
    ("duplicate", {"history": (record(300, key=alert().key),)}),
    ("duplicate", {"history": (record(300, key=alert().key, outcome=Outcome.STUCK),)}),
    ("duplicate", {"history": (record(300, key=alert().key, outcome=None),)}),
    ("off", {"rules": policy("off")}),
    ("paused", {"paused": "jo: moving racks"}),
    ("window", {"rules": policy(windows=WINDOW)}),
    ("busy", {"history": (record(5, outcome=Outcome.BUSY, why="jo is at work"),)}),
    ("cooldown", {"history": (record(10, cause="x"),)}),
    ("cooldown", {"history": (record(200, cause="x", ended=NOW - timedelta(minutes=1)),)}),
    ("host_hour", {"history": (record(50, cause="x"),)}),
    ("host_hour", {"history": (record(50, cause="x", outcome=Outcome.FAILED),)}),
    ("host_day", {"history": tuple(record(m, cause="x") for m in (120, 240, 360))}),
    (
        "fleet_hour",
        {"history": tuple(record(m, host=f"h{m}", cause="x") for m in (20, 30, 40, 50))},
    ),
    ("unreachable", {"state": fleet(gpu1=HostView(frozenset({"demo"}), problem="no route"))}),
    ("drained", {"state": fleet(gpu1=DRAINED)}),
    ("hosts_out", {"state": fleet(gpu2=DRAINED)}),
    ("hosts_out", {"state": fleet(gpu2=HostView(frozenset({"demo"}), problem="silent"))}),
    ("last_engine", {"state": ALONE}),
    ("last_engine", {"state": fleet(gpu2=IDLE, gpu3=IDLE)}),
    ("last_engine", {"state": ALONE, "what": alert("EngineStalled", labels={"model": "demo"})}),
]


@pytest.mark.parametrize(("code", "given"), REASONS)
def test_each_reason_stops_it_and_says_why(code: str, given: dict[str, Any]) -> None:
    found = decided(**given)
    assert (found.verdict, found.code) == (Verdict.SKIP, code)
    assert found.reason


@pytest.mark.parametrize(
    "given",
    [
        {"history": (record(300, key=alert().key, outcome=Outcome.BUSY),)},
        {"history": (record(300, key=alert().key, outcome=Outcome.NOT_BEGUN),)},
        {"history": (record(300, key=alert().key, verdict=Verdict.SKIP, outcome=None),)},
        {"history": (record(300, key=alert().key, verdict=Verdict.DRY_RUN, outcome=None),)},
        {"history": (record(10, host="gpu2"),)},
        {"history": (record(10, verdict=Verdict.SKIP, outcome=None),)},
        {"history": (record(61),)},
        {"state": ALONE, "rules": policy(even_the_last=True)},
        {"state": fleet(gpu2=DRAINED), "rules": policy(limits={"hosts_out_at_once": 2})},
        {"state": fleet(gpu1=IDLE)},
        {"rules": policy(windows=[{"start": "02:30", "end": "03:30", "days": ["thu"]}])},
        {"rules": policy(windows=[{"start": "23:00", "end": "04:00", "days": ["wed"]}])},
    ],
)
def test_what_does_not_stop_it(given: dict[str, Any]) -> None:
    assert decided(**given).verdict == Verdict.ACT


def test_a_rule_may_be_stricter_or_looser_than_the_policy_about_the_last_engine() -> None:
    for whole, own, verdict in ((True, False, Verdict.SKIP), (False, True, Verdict.ACT)):
        rule = {"action": "reboot_host", "even_the_last": own}
        rules = policy(even_the_last=whole, alerts={"GpuFellOff": rule})
        assert decided(state=ALONE, rules=rules).verdict == verdict


def test_a_rules_own_windows_count_instead_of_the_policys() -> None:
    own = {"action": "drain", "windows": [{"start": "02:00", "end": "04:00"}]}
    assert decided(rules=policy(windows=WINDOW, alerts={"GpuFellOff": own})).verdict == Verdict.ACT


@pytest.mark.parametrize(("reboots", "verdict"), [(1, Verdict.ACT), (2, Verdict.REPLACE)])
def test_two_reboots_without_cure_end_it_and_say_replace(reboots: int, verdict: Verdict) -> None:
    history = tuple(record(60 * 24 * (n + 1)) for n in range(reboots))
    found = decided(history=history)
    assert found.verdict == verdict
    assert verdict == Verdict.ACT or "replace the GPU" in found.reason


@pytest.mark.parametrize(
    "other",
    [
        {"minutes_ago": 60 * 24 * 8},
        {"cause": alert(labels={"xid": "48"}).cause},
        {"cause": alert(labels={"uuid": "GPU-another"}).cause},
        {"outcome": Outcome.ROLLED_BACK},
        {"action": Action.RESET_GPU},
    ],
)
def test_reboots_for_something_else_or_long_ago_do_not_count(other: dict[str, Any]) -> None:
    history = tuple(record(**{"minutes_ago": 60 * 24 * (n + 1), **other}) for n in range(2))
    assert decided(history=history).verdict == Verdict.ACT


def test_a_dry_run_says_what_it_would_do_by_the_same_checks() -> None:
    found = decided(rules=policy("dry_run"))
    assert found.verdict == Verdict.DRY_RUN
    assert found.reason == "would reboot_host on gpu1, GPU 0: GpuFellOff on gpu1 (gpu 0, xid 79)"
    assert decided(rules=policy("dry_run"), state=ALONE).code == "last_engine"


def test_a_dry_run_is_told_once_an_occurrence() -> None:
    told = (record(300, key=alert().key, verdict=Verdict.DRY_RUN, outcome=None),)
    assert decided(rules=policy("dry_run"), history=told).code == "duplicate"


def test_a_host_that_remediation_drained_may_be_acted_on_further() -> None:
    ours = record(120, action=Action.DRAIN, operation="op-7", cause="x")
    state = fleet(gpu1=replace(DRAINED, drained="operation op-7"))
    assert decided(history=(ours,), state=state).verdict == Verdict.ACT
    rules = policy(alerts={"GpuFellOff": "drain"})
    assert decided(history=(ours,), state=state, rules=rules).code == "drained"


def test_another_models_engine_elsewhere_does_not_count() -> None:
    other = HostView(frozenset({"other"}), frozenset({"other"}))
    found = decided(state=FleetState({"gpu1": SERVES, "gpu2": other}))
    assert (found.code, "demo" in found.reason) == ("last_engine", True)


def test_restarting_one_models_engine_concerns_no_other_model() -> None:
    two = HostView(frozenset({"demo", "rare"}), frozenset({"demo", "rare"}))
    state = FleetState({"gpu1": two, "gpu2": SERVES})
    stalled = alert("EngineStalled", labels={"model": "demo", "xid": "", "gpu": ""})
    assert decided(stalled, state=state).verdict == Verdict.ACT
    assert decided(alert(), state=state).code == "last_engine"
