"""The plan of an action: the same that an operator's `ops restart` makes."""

from __future__ import annotations

from collections.abc import Sequence

from ops.errors import InputError
from ops.fleet.model import Fleet
from ops.models.state import ModelOnHost, survey
from ops.operations.plan import Plan
from ops.remedy.policy import Action, Waits
from ops.restarts import engine_plan, gpu_plan, host_plan


def plan_action(
    fleet: Fleet, action: Action, host: str, gpu: int | None, model: str, waits: Waits, why: str
) -> Plan:
    """Plan an action.

    Args:
        fleet: The fleet.
        action: What to do.
        host: Where.
        gpu: Which of its GPUs; None for all.
        model: Whose engine, for `restart_engine`; empty for all of the host's.
        waits: How long to wait.
        why: For the journal.

    Raises:
        InputError: There is no such host, or the action is none.
        OpsError: The host has no engine of the model, or holds requests back.
    """
    target = fleet.host(host)
    if action == Action.RESTART_ENGINE:
        names = [m.name for m in target.models if model in ("", m.name)]
        states: dict[str, Sequence[ModelOnHost]] = {
            name: survey(fleet, name, (host,)) for name in names
        }
        choices = engine_plan.Choices(
            strategy=engine_plan.IN_PLACE,  # the other slot would start on the same GPU
            drain_seconds=waits.drain,
            ready_seconds=waits.ready,
            cut=True,
            why=why,
        )
        return engine_plan.plan_restart(states, choices, partial=len(fleet.group("gpu")) > 1)
    if action == Action.RESET_GPU:
        return gpu_plan.plan_reset(
            fleet, target, gpu,
            gpu_plan.Choices(waits.drain, waits.reset, waits.ready, cut=True, why=why),
        )  # fmt: skip
    whole = host_plan.Choices(
        drain_seconds=waits.drain,
        reboot_seconds=waits.reboot,
        ready_seconds=waits.ready,
        cut=True,
        why=why,
    )
    if action == Action.REBOOT_HOST:
        return host_plan.plan_restart(fleet, (target,), whole)
    if action == Action.DRAIN:
        return host_plan.plan_drain(target, whole)
    raise InputError(f"{action} is nothing to do")
