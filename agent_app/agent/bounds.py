"""Bounds that end a runaway turn: steps, repeated calls, tokens."""

import hashlib
import json
from typing import TypedDict

from agent_app.config import Limits
from agent_app.errors import BoundExceeded


class Turn(TypedDict):
    """What one turn has used so far; part of the checkpoint, so a resume keeps counting."""

    run_id: str
    steps: int
    tokens: int
    calls: dict[str, int]


def begin_turn(run_id: str) -> Turn:
    """Return a turn that has used nothing."""
    return {"run_id": run_id, "steps": 0, "tokens": 0, "calls": {}}


def check_step(turn: Turn, limits: Limits, *, session_tokens: int) -> None:
    """Refuse another call of the model beyond the bounds.

    Args:
        turn: What this turn has used.
        limits: The bounds.
        session_tokens: Tokens of the thread before this turn.

    Raises:
        BoundExceeded: A bound is reached.
    """
    if turn["steps"] >= limits.steps:
        raise BoundExceeded(f"the turn used all of its {limits.steps} steps")
    if turn["tokens"] >= limits.turn_tokens:
        raise BoundExceeded(f"the turn used all of its {limits.turn_tokens} tokens")
    if session_tokens + turn["tokens"] >= limits.session_tokens:
        raise BoundExceeded(
            f"the session used all of its {limits.session_tokens} tokens", cure="begin a new thread"
        )


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
    except ValueError:
        return arguments
