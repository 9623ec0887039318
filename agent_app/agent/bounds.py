"""Bounds that end a runaway turn: steps, repeated calls, tokens."""

import hashlib
import json
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from agent_app.config import Limits
from agent_app.errors import BoundExceeded


class StepSpent(TypedDict):
    """What a finished step used, and in which attempt of its run."""

    attempt: int
    prompt_tokens: int
    completion_tokens: int
    engine_seconds: float


class Turn(TypedDict):
    """What one turn has done so far; part of the checkpoint, so a resume keeps counting."""

    run_id: str
    steps: int
    tokens: int
    """Of its finished steps."""
    calls: dict[str, int]
    spent: NotRequired[list[StepSpent]]
    """One entry a finished step, of all attempts."""
    told: NotRequired[dict[str, list[int]]]
    """Which events told a step: `[attempt, before the first, last]`, by `told_key`."""


def begin_turn(run_id: str) -> Turn:
    """Return a turn that has used nothing."""
    return {"run_id": run_id, "steps": 0, "tokens": 0, "calls": {}, "spent": [], "told": {}}


@dataclass(frozen=True, slots=True)
class Used:
    """What a turn has used, unfinished steps of interrupted attempts included."""

    tokens: int
    engine_seconds: float
    session_tokens: int
    """Tokens of the thread, this turn's included."""


def check_step(turn: Turn, limits: Limits, used: Used) -> None:
    """Refuse another call of the model beyond the bounds.

    Raises:
        BoundExceeded: A bound is reached.
    """
    if turn["steps"] >= limits.steps:
        raise BoundExceeded(f"the turn used all of its {limits.steps} steps")
    if used.tokens >= limits.turn_tokens:
        raise BoundExceeded(f"the turn used all of its {limits.turn_tokens} tokens")
    if used.engine_seconds >= limits.turn_engine_seconds:
        raise engine_time_is_up(limits)
    if used.session_tokens >= limits.session_tokens:
        raise BoundExceeded(
            f"the session used all of its {limits.session_tokens} tokens", cure="begin a new thread"
        )


def engine_time_is_up(limits: Limits) -> BoundExceeded:
    """Return the error of a turn that kept engines busy for too long."""
    return BoundExceeded(f"the turn used all of its {limits.turn_engine_seconds:g} s of engines")


def count_calls(turn: Turn, calls: list[tuple[str, str]], limits: Limits) -> dict[str, int]:
    """Return the turn's count per (tool, arguments) with these calls added.

    Raises:
        BoundExceeded: One call was made too often, or too many at once.
    """
    if len(calls) > limits.calls_per_step:
        raise BoundExceeded(f"the model asked for more than {limits.calls_per_step} tools at once")
    counts = dict(turn["calls"])
    for name, arguments in calls:
        key = hashlib.sha256(f"{name}\0{_canonical(arguments)}".encode()).hexdigest()[:16]
        counts[key] = counts.get(key, 0) + 1
        if counts[key] > limits.identical_calls:
            raise BoundExceeded(
                f"the model called {name} with the same arguments more than "
                f"{limits.identical_calls} times"
            )
    return counts


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
