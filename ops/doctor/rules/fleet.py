"""What operations and people left: unfinished operations, drained hosts, an inventory of another
state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.doctor.finding import CRITICAL, INFO, WARNING, Case, Finding
from ops.live.operation import view

LONG_SECONDS = 7200.0
UNFINISHED = Case(
    "operation-unfinished",
    CRITICAL,
    "operation {id} ({what}) was left at step {step} of {steps}",
    "whoever ran it is gone ({by}); until it has ended no other operation begins",
    "ops resume   (or ops abort, which brings back what it changed)",
)
STUCK = Case(
    "operation-stuck",
    CRITICAL,
    "operation {id} ({what}) could not bring back what it had changed",
    "a step of its undoing failed: {why}",
    "ops show {id}; mend what it names, then ops abort",
)
RUNNING = Case(
    "operation-running-long",
    INFO,
    "operation {id} ({what}) has been running for {hours} hours",
    "it works, or the operator's machine sleeps",
    "ops show {id}",
)
DRAINED = Case(
    "host-left-drained",
    CRITICAL,
    "the host refuses requests for its models: {why}",
    "it was taken out of traffic, and no operation that would let it in again is under way",
    "well again (ops doctor {host})? ops restart engine --limit {host}, or rm "
    "/var/lib/rackhand/drained",
)
HELD = Case(
    "model-left-held",
    CRITICAL,
    "requests for model {model} are held: {why}",
    "an operation held them, and none is under way",
    "ops resume; nothing to resume? rm /var/lib/rackhand/held/{model}",
)
AHEAD = Case(
    "inventory-differs",
    WARNING,
    "{model} serves revision {actual}, the inventory wants {wanted}",
    "somebody moved one and not the other",
    "write {actual} into the inventory, or move the host: ops model upgrade {model} --to {wanted}",
)
NOT_THERE = Case(
    "model-not-on-host",
    WARNING,
    "the inventory wants {model} here, and the host has none",
    "it was added to the inventory and not provisioned, or the fact file was removed",
    "ops provision --tags engine --limit {host}",
)
FACT = Case(
    "fact-file-broken",
    CRITICAL,
    "{path} is no JSON",
    "it was changed by hand, or a disk was full while it was written: ops and site.yml read it",
    "mend or remove it, then ops provision --limit {host}",
)
CASES = (UNFINISHED, STUCK, RUNNING, DRAINED, HELD, AHEAD, NOT_THERE, FACT)


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what was left behind; the keeper of operations tells for the whole fleet."""
    busy = evidence.get("fleet_busy", False)
    yield from _operation(host, evidence)
    traffic = evidence.get("traffic") or {}
    if traffic.get("drained") and not busy:
        hours = traffic["drained_seconds"] / 3600
        line = f"/var/lib/rackhand/drained: {traffic['drained']}"
        yield DRAINED.found(host, "host", line, f"{hours:.1f} hours ago", why=traffic["drained"])
    for model, why in (traffic.get("held") or {}).items():
        if not busy:
            yield HELD.found(host, model, f"/var/lib/rackhand/held/{model}", model=model, why=why)
    for line in evidence.get("facts") or []:
        path = line.partition(": ")[0]
        yield FACT.found(host, path, line, path=path)
    yield from _models(host, evidence)


def _operation(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """The operation that is under way or was left."""
    operation = view(evidence.get("operation"))
    if operation is None:
        return
    what = f"{operation.verb} {operation.subject}".strip()
    known: dict[str, Any] = {
        "id": operation.id,
        "what": what,
        "step": operation.step,
        "steps": operation.steps,
        "by": operation.by,
        "why": operation.failure or operation.why,
    }
    subject, at = f"operation {operation.id}", f"at: {operation.title or 'before its first step'}"
    if operation.status == "unfinished":
        yield UNFINISHED.found(host, subject, at, f"by {operation.by}", **known)
    elif operation.status == "stuck":
        yield STUCK.found(host, subject, at, operation.failure, **known)
    else:
        age = evidence["machine"]["now"] - (operation.began or evidence["machine"]["now"])
        if age > LONG_SECONDS:
            yield RUNNING.found(host, subject, at, **known, hours=f"{age / 3600:.1f}")


def _models(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """The inventory's revisions against the host's."""
    if "gpu" not in evidence.get("groups", ()):
        return
    fact = (evidence.get("engines") or {}).get("fact") or {}
    for model, wanted in (evidence.get("inventory") or {}).items():
        if model not in fact:
            yield NOT_THERE.found(host, model, "/etc/ansible/facts.d/engine.fact", model=model)
        elif fact[model].get("revision") != wanted and not evidence.get("fleet_busy"):
            actual = str(fact[model].get("revision"))
            line = f"engine.fact: {actual}; inventory: {wanted}"
            yield AHEAD.found(host, model, line, model=model, actual=actual, wanted=wanted)
