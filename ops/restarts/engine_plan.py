"""What restarting a model's engines means, host by host. Pure.

Where a second engine fits, the restart is a blue-green move to the same entry: another engine
starts in the other slot and takes the requests over, so that nothing waits for it to load.
Elsewhere the host refuses new requests meanwhile, and the app sends them to another host or holds
them on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ops.errors import InputError, OpsError
from ops.models import upgrade
from ops.models.state import ModelOnHost
from ops.operations.plan import Plan, Step
from ops.operations.together import batches

AUTO, BLUE_GREEN, IN_PLACE = "auto", "blue-green", "in-place"
STRATEGIES = (AUTO, BLUE_GREEN, IN_PLACE)


@dataclass(frozen=True)
class Choices:
    """How an operator wants it.

    Attributes:
        strategy: `auto`, `blue-green` or `in-place`.
        max_unavailable: Hosts that refuse requests at once.
        hold_seconds: How long the app holds requests on while no host serves.
        drain_seconds: How long requests under way may take.
        ready_seconds: How long an engine may load.
        cut: Restart an engine whose requests have not ended by then: one that stalls never ends
            them.
        why: In the operator's words.
    """

    strategy: str = AUTO
    max_unavailable: int = 1
    hold_seconds: float = 120.0
    drain_seconds: float = 330.0
    ready_seconds: float = 1800.0
    cut: bool = False
    why: str = ""


def plan_restart(
    states: dict[str, Sequence[ModelOnHost]], choices: Choices, *, partial: bool = False
) -> Plan:
    """Plan to restart the engines of models.

    Args:
        states: By model: its hosts.
        choices: How.
        partial: Not all of the hosts are given: others serve meanwhile.

    Raises:
        InputError: A choice cannot be.
        OpsError: A host has no engine of a model, or holds requests back already.
    """
    if choices.strategy not in STRATEGIES:
        raise InputError(
            f"no strategy is called {choices.strategy!r}", cure="one of: " + ", ".join(STRATEGIES)
        )
    if choices.max_unavailable < 1:
        raise InputError("at least one has to be out at a time", place="--max-unavailable")
    summary: list[str] = []
    steps: list[Step] = []
    warnings: list[str] = []
    for name, hosts in states.items():
        steps += restart_steps(name, hosts, choices)
        summary += [f"{name} on {s.host}: {strategy(s, choices)}" for s in hosts]
        warnings += _warnings(name, hosts, choices, partial)
    return Plan("restart engine", " ".join(states), tuple(summary), tuple(steps),
                tuple(warnings), choices.why)  # fmt: skip


def restart_steps(name: str, hosts: Sequence[ModelOnHost], choices: Choices) -> list[Step]:
    """Restart one model's engines: hosts with room by the other slot, the others in batches.

    Raises:
        OpsError: A host has no engine, or holds requests back already.
    """
    for state in hosts:
        if not state.active or state.held:
            why = "holds requests back" if state.held else f"has no engine of {name} yet"
            raise OpsError(
                f"{state.host} {why}", place=state.host, cure="ops doctor, or ops provision"
            )
    steps: list[Step] = []
    for state in hosts:
        if strategy(state, choices) == BLUE_GREEN:
            steps += _beside(name, state, choices)
    waiting = [state for state in hosts if strategy(state, choices) == IN_PLACE]
    for batch in batches(waiting, choices.max_unavailable):
        steps.append(_in_place(name, batch, choices))
    return steps


def strategy(state: ModelOnHost, choices: Choices) -> str:
    """How a host's engine is restarted: beside itself where both fit."""
    if choices.strategy != AUTO:
        return choices.strategy
    # A fact of an older release has the revision alone, which is too little to start another by.
    known = len(state.entry) > 1
    return BLUE_GREEN if known and state.has_room_beside(state.entry) else IN_PLACE


def _beside(name: str, state: ModelOnHost, choices: Choices) -> list[Step]:
    """The same entry in the other slot; what a rollback would go back to stays what it was."""
    whole = upgrade.Choices(
        ladder=(100,),
        stage_seconds=0.0,
        keep_seconds=0.0,
        drain_seconds=choices.drain_seconds,
        ready_seconds=choices.ready_seconds,
    )
    steps = [
        *upgrade.prepare_steps(name, state, state.entry),
        *upgrade.blue_green_steps(name, state, state.entry, whole),
        upgrade.retire_step(name, state, whole),
    ]
    return [
        replace(step, values={**step.values, "standby": dict(state.standby)})
        if step.kind == "engine.commit"
        else step
        for step in steps
    ]


def _in_place(name: str, batch: Sequence[ModelOnHost], choices: Choices) -> Step:
    hosts = ", ".join(state.host for state in batch)
    values = {
        "model": name,
        "hosts": [{"host": state.host, "slot": state.active} for state in batch],
        "drain_seconds": choices.drain_seconds,
        "ready_seconds": choices.ready_seconds,
        "cut": choices.cut,
    }
    title = f"{hosts}: restart {name} when its requests have ended, until it answers"
    return Step("restart.engine", batch[0].host, title, values)


def _warnings(
    name: str, hosts: Sequence[ModelOnHost], choices: Choices, partial: bool
) -> list[str]:
    found = []
    waiting = [state for state in hosts if strategy(state, choices) == IN_PLACE]
    if waiting and not partial and min(choices.max_unavailable, len(waiting)) >= len(hosts):
        found.append(
            f"no host serves {name} meanwhile: requests wait while it loads, and fail after "
            f"{choices.hold_seconds:.0f} s"
        )
    kept = [s for s in hosts if s.standby_runs and strategy(s, choices) == BLUE_GREEN]
    if kept:
        told = ", ".join(state.host for state in kept)
        found.append(f"the engine of before on {told} is let go: a rollback starts it anew")
    return found
