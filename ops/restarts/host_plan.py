"""What rebooting hosts means, a few at a time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ops.errors import InputError
from ops.fleet.model import Fleet, Host
from ops.operations.plan import Plan, Step
from ops.operations.together import batches

ONLY = {
    "edge": "nothing answers while it reboots",
    "agent": "the edge answers 502 while it reboots",
    "data": "requests that need the database fail while it reboots",
}
"""By group: what it means when no other host of it is left."""


@dataclass(frozen=True)
class Choices:
    """How an operator wants it.

    Attributes:
        max_unavailable: Hosts that are away at once.
        drain_seconds: How long requests under way may take.
        reboot_seconds: How long a host may take to boot.
        ready_seconds: How long its engines and instances may take to serve.
        cut: Go on though requests under way have not ended by then: on a broken GPU they never do.
        why: In the operator's words.
    """

    max_unavailable: int = 1
    drain_seconds: float = 330.0
    reboot_seconds: float = 900.0
    ready_seconds: float = 1800.0
    cut: bool = False
    why: str = ""


def pick(fleet: Fleet, words: Sequence[str]) -> tuple[Host, ...]:
    """Return the hosts that names of hosts or groups mean, each once, in the inventory's order.

    Raises:
        InputError: A word names neither.
    """
    found: set[str] = set()
    for word in words:
        found |= {host.name for host in fleet.group(word)} or {fleet.host(word).name}
    return tuple(host for host in fleet.hosts if host.name in found)


def plan_restart(fleet: Fleet, hosts: Sequence[Host], choices: Choices) -> Plan:
    """Plan to reboot hosts: out of traffic, boot, proof, back.

    Raises:
        InputError: A choice cannot be.
    """
    if choices.max_unavailable < 1:
        raise InputError("at least one has to be away at a time", place="--max-unavailable")
    # The keeper of lock and journal goes last: until then its line is whole.
    keeper = fleet.first("data").name
    order = sorted(hosts, key=lambda host: host.name == keeper)
    groups = batches(order, choices.max_unavailable)
    steps = [step for batch in groups for step in reboot_steps(batch, choices)]
    summary = [f"{len(order)} host(s) reboot, {choices.max_unavailable} at a time"]
    return Plan(
        verb="restart host",
        subject=" ".join(host.name for host in order),
        summary=tuple(summary),
        steps=tuple(steps),
        warnings=tuple(warnings(fleet, groups)),
        why=choices.why,
    )


def plan_drain(host: Host, choices: Choices) -> Plan:
    """Plan to take a host out of traffic and leave it there, for a person to look at."""
    return Plan(
        verb="drain host",
        subject=host.name,
        summary=(f"{host.name} leaves traffic and stays out of it",),
        steps=tuple(s for s in reboot_steps([host], choices) if s.kind == "host.drain"),
        why=choices.why,
    )


def plan_let_in(host: Host, choices: Choices) -> Plan:
    """Plan to put a host that is out of traffic back into it, once it has proven itself."""
    kinds = ("host.prove", "host.let_in")
    return Plan(
        verb="let host in",
        subject=host.name,
        summary=(f"{host.name} is proven and gets requests again",),
        steps=tuple(s for s in reboot_steps([host], choices) if s.kind in kinds),
        why=choices.why,
    )


def reboot_steps(batch: Sequence[Host], choices: Choices) -> list[Step]:
    """Reboot hosts together."""
    told = ", ".join(host.name for host in batch)
    values = {
        "hosts": [host.name for host in batch],
        "drain_seconds": choices.drain_seconds,
        "reboot_seconds": choices.reboot_seconds,
        "ready_seconds": choices.ready_seconds,
        "cut": choices.cut,
    }
    return [
        Step(f"host.{kind}", batch[0].name, f"{told}: {title}", values)
        for kind, title in (
            ("drain", "out of traffic, requests under way end"),
            ("reboot", "reboot"),
            ("prove", "units run, engines make tokens"),
            ("let_in", "back into traffic, instance by instance"),
        )
    ]


def warnings(fleet: Fleet, groups: Sequence[Sequence[Host]]) -> list[str]:
    """What nobody does while a batch is away."""
    if fleet.single:
        return ["it is the only host: nothing answers while it reboots"]
    found = []
    for batch in groups:
        told, away = ", ".join(host.name for host in batch), {host.name for host in batch}
        for group, words in ONLY.items():
            members = {host.name for host in fleet.group(group)}
            if members & away and (members <= away or group == "data"):
                found.append(f"{told}: no other host of group {group}: {words}")
        for model in sorted(
            {m.name for host in batch for m in host.models if "gpu" in host.groups}
        ):
            serving = {h.name for h in fleet.group("gpu") if model in {m.name for m in h.models}}
            if serving <= away:
                found.append(f"{told}: no other host serves {model}: the app holds its requests on")
    return found
