"""What is done about an alert, and why not. Pure: a table of reasons in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ops.remedy.alert import Alert
from ops.remedy.policy import Action, Mode, Policy, Rule
from ops.remedy.records import Outcome, Record, Verdict

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BUSY_AGAIN = timedelta(minutes=10)
"""Until an action is tried again that found the fleet locked: a person may have to end that."""


@dataclass(frozen=True)
class HostView:
    """A GPU host as far as a decision needs it.

    Attributes:
        models: That the inventory gives it.
        serving: Of those: with an engine that runs and takes requests.
        drained: Why it takes no requests; empty if it does.
        problem: Why nothing is known of it.
    """

    models: frozenset[str]
    serving: frozenset[str] = frozenset()
    drained: str = ""
    problem: str = ""

    @property
    def out(self) -> bool:
        """Whether it serves nobody."""
        return bool(self.drained or self.problem)


@dataclass(frozen=True)
class FleetState:
    """The GPU hosts, by name."""

    hosts: Mapping[str, HostView] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What is done about an alert.

    Attributes:
        code: Why, in a word that does not change.
        reason: Why, in a sentence.
    """

    verdict: Verdict
    action: Action
    code: str
    reason: str


def decide(
    alert: Alert,
    policy: Policy,
    history: Sequence[Record],
    state: FleetState,
    now: datetime,
    *,
    paused: str = "",
) -> Decision:
    """Decide what is done about an alert.

    Args:
        alert: As Alertmanager tells it.
        policy: The inventory's.
        history: Every record, oldest first.
        state: The fleet as it is.
        now: With a time zone.
        paused: Who pulled the kill switch; empty if nobody did.
    """
    refused = screen(alert, policy, history, state.hosts, now, paused=paused)
    if refused is not None:
        return refused
    rule = rule_for(alert, policy)
    assert rule is not None  # or it would have been refused
    refused = _of_the_fleet(alert, policy, rule, history, state)
    if refused is not None:
        return refused
    what = f"{rule.action} on {alert.host}" + ("" if alert.gpu is None else f", GPU {alert.gpu}")
    if policy.mode == Mode.DRY_RUN:
        return Decision(Verdict.DRY_RUN, rule.action, "dry_run", f"would {what}: {alert.told()}")
    return Decision(Verdict.ACT, rule.action, "act", f"{what}: {alert.told()}")


def screen(
    alert: Alert,
    policy: Policy,
    history: Sequence[Record],
    hosts: Mapping[str, object],
    now: datetime,
    *,
    paused: str = "",
) -> Decision | None:
    """Refuse what can be refused without asking a host; None where it has to be looked at.

    Args:
        hosts: The GPU hosts, by name; the others as in `decide`.
    """
    rule = rule_for(alert, policy)
    action = rule.action if rule else Action.NONE
    for code, reason in _reasons(alert, policy, rule, history, hosts, now, paused):
        return Decision(Verdict.SKIP, action, code, reason)
    return _of_the_limits(alert, policy, action, history, now)


def _reasons(
    alert: Alert,
    policy: Policy,
    rule: Rule | None,
    history: Sequence[Record],
    hosts: Mapping[str, object],
    now: datetime,
    paused: str,
) -> Iterator[tuple[str, str]]:
    """Why nothing is done, by the alert and the policy; the first reason counts."""
    if alert.status != "firing":
        yield "resolved", f"{alert.name} no longer fires"
    if rule is None or rule.action == Action.NONE:
        yield "no_rule", f"the policy has no action for {alert.told()}"
        return
    if alert.host not in hosts:
        yield "no_host", f"{alert.name} names no GPU host of the inventory: {alert.host!r}"
    if rule.only and alert.host not in rule.only:
        yield "only", f"the policy acts on {', '.join(rule.only)} only"
    if (before := _same_occurrence(alert, policy, history)) is not None:
        yield "duplicate", f"this occurrence was dealt with in {before.id}"
    if policy.mode == Mode.OFF:
        yield "off", "remediation is off"
    if paused:
        yield "paused", f"remediation is paused: {paused}"
    windows = rule.windows or policy.windows
    if windows and not any(window.holds(now) for window in windows):
        yield "window", "no maintenance window is open"


def rule_for(alert: Alert, policy: Policy) -> Rule | None:
    """The first rule that fits an alert."""
    return next((r for r in policy.rules(alert.name) if r.fits(alert.labels)), None)


def _same_occurrence(alert: Alert, policy: Policy, history: Sequence[Record]) -> Record | None:
    """What was done about this very occurrence; only told, where it is only told again."""
    for record in reversed(history):
        if record.key != alert.key:
            continue
        told = record.verdict == Verdict.DRY_RUN and policy.mode == Mode.DRY_RUN
        if record.acted or told:
            return record
    return None


def _of_the_limits(
    alert: Alert, policy: Policy, action: Action, history: Sequence[Record], now: datetime
) -> Decision | None:
    limits = policy.limits
    acted = [record for record in history if record.acted]
    rebooted = _uncured_reboots(alert, policy, acted, now)
    if action == Action.REBOOT_HOST and rebooted >= limits.reboots_before_replace:
        reason = f"{alert.told()} came back after {rebooted} reboots: replace the GPU"
        return Decision(Verdict.REPLACE, action, "replace", reason)
    for record in history:
        if record.outcome == Outcome.BUSY and record.ended and now - record.ended < BUSY_AGAIN:
            reason = f"the fleet was locked: {record.why.splitlines()[0] if record.why else ''}"
            return Decision(Verdict.SKIP, action, "busy", reason)
    here = [record for record in acted if record.host == alert.host]
    recent = max((record.ended or record.at for record in here), default=None)
    cooldown = timedelta(minutes=limits.cooldown_minutes)
    if recent is not None and now - recent < cooldown:
        reason = f"the last action on {alert.host} was less than {cooldown} ago"
        return Decision(Verdict.SKIP, action, "cooldown", reason)
    for code, records, span, most, words in (
        ("host_hour", here, HOUR, limits.per_host_per_hour, f"{alert.host} this hour"),
        ("host_day", here, DAY, limits.per_host_per_day, f"{alert.host} this day"),
        ("fleet_hour", acted, HOUR, limits.fleet_per_hour, "the fleet this hour"),
    ):
        count = sum(now - record.at < span for record in records)
        if count >= most:
            reason = f"rate limit: {count} of {most} action(s) on {words}"
            return Decision(Verdict.SKIP, action, code, reason)
    return None


def _uncured_reboots(alert: Alert, policy: Policy, acted: Sequence[Record], now: datetime) -> int:
    span = timedelta(days=policy.limits.replace_days)
    return sum(
        record.cause == alert.cause
        and record.action == Action.REBOOT_HOST
        and record.outcome == Outcome.DONE
        and now - record.at < span
        for record in acted
    )


def _of_the_fleet(
    alert: Alert, policy: Policy, rule: Rule, history: Sequence[Record], state: FleetState
) -> Decision | None:
    def skip(code: str, reason: str) -> Decision:
        return Decision(Verdict.SKIP, rule.action, code, reason)

    host = state.hosts[alert.host]
    if host.problem:
        return skip("unreachable", f"{alert.host} cannot be acted on: {host.problem}")
    if host.drained and not _ours(host.drained, rule.action, history):
        return skip("drained", f"{alert.host} is out of traffic already: {host.drained}")
    others = {name: view for name, view in state.hosts.items() if name != alert.host}
    out = sorted(name for name, view in others.items() if view.out)
    if len(out) >= policy.limits.hosts_out_at_once:
        return skip("hosts_out", f"out of traffic already: {', '.join(out)}")
    alone = sorted(
        model
        for model in _concerned(alert, rule, host)
        if not any(model in view.serving for view in others.values())
    )
    last = policy.even_the_last if rule.even_the_last is None else rule.even_the_last
    if alone and not last:
        reason = f"no other host serves {', '.join(alone)} (even_the_last is false)"
        return skip("last_engine", reason)
    return None


def _ours(drained: str, action: Action, history: Sequence[Record]) -> bool:
    """Whether it was drained by an action of ours, which another action may follow."""
    ours = {r.operation for r in history if r.action == Action.DRAIN and r.operation}
    return action != Action.DRAIN and drained.removeprefix("operation ") in ours


def _concerned(alert: Alert, rule: Rule, host: HostView) -> frozenset[str]:
    """The models whose engines leave traffic."""
    model = alert.labels.get("model", "")
    if rule.action == Action.RESTART_ENGINE and model in host.models:
        return frozenset({model})
    return host.models
