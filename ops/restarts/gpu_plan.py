"""What resetting the GPUs of a host means. Pure.

A reset needs that nobody has the GPU open: not an engine, and not what only watches it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ops.errors import InputError
from ops.fleet.model import Fleet, Host
from ops.operations.plan import Plan, Step


@dataclass(frozen=True)
class Choices:
    """How an operator wants it.

    Attributes:
        drain_seconds: How long requests under way may take.
        reset_seconds: How long the driver may take to reset the GPUs.
        ready_seconds: How long the host's engines may take to serve.
        cut: Go on though requests under way have not ended by then: on a broken GPU they never do.
        why: In the operator's words.
    """

    drain_seconds: float = 330.0
    reset_seconds: float = 120.0
    ready_seconds: float = 1800.0
    cut: bool = False
    why: str = ""


def plan_reset(fleet: Fleet, host: Host, gpu: int | None, choices: Choices) -> Plan:
    """Plan to reset one GPU of a host, or all of them.

    Args:
        fleet: The fleet.
        host: A host of group `gpu`.
        gpu: NVML's index; None for all, which hosts with NVSwitch demand.
        choices: How.

    Raises:
        InputError: The host is no GPU host, or the index is none.
    """
    if "gpu" not in host.groups:
        raise InputError(
            f"{host.name} is not in group gpu",
            place=str(fleet.inventory),
            cure="one of: " + ", ".join(each.name for each in fleet.group("gpu")),
        )
    if gpu is not None and gpu < 0:
        raise InputError(f"no GPU has index {gpu}", place="--gpu", cure="ops status shows them")
    what = "all GPUs" if gpu is None else f"GPU {gpu}"
    values = {
        "hosts": [host.name],
        "gpu": gpu,
        "drain_seconds": choices.drain_seconds,
        "reset_seconds": choices.reset_seconds,
        "ready_seconds": choices.ready_seconds,
        "cut": choices.cut,
    }
    steps = [
        Step(f"gpu.{kind}", host.name, f"{host.name}: {title}", values)
        for kind, title in (
            ("drain", "its engines out of traffic, requests under way end"),
            ("stop", f"whoever has {what} open stops"),
            ("reset", f"reset {what}"),
            ("start", "units run, engines make tokens"),
            ("let_in", "its engines back into traffic"),
        )
    ]
    return Plan(
        verb="restart gpu",
        subject=host.name if gpu is None else f"{host.name} GPU {gpu}",
        summary=(f"{what} of {host.name}: reset while nobody uses it",),
        steps=tuple(steps),
        warnings=tuple(_warnings(fleet, host)),
        why=choices.why,
    )


def _warnings(fleet: Fleet, host: Host) -> list[str]:
    others = {m.name for h in fleet.group("gpu") if h.name != host.name for m in h.models}
    return [
        f"no other host serves {model.name} meanwhile: the app holds its requests on"
        for model in host.models
        if model.name not in others
    ]
