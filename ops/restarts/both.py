"""Several plans as one operation. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ops.errors import InputError
from ops.operations.plan import Plan


def joined(verb: str, plans: Sequence[Plan], why: str) -> Plan:
    """One plan that does one after the other.

    Raises:
        InputError: None of them has anything to do.
    """
    if not any(plan.steps for plan in plans):
        raise InputError(
            "no engine and no instance of the app is there to restart", place="--limit"
        )
    return Plan(
        verb=verb,
        subject=", ".join(plan.subject for plan in plans if plan.steps),
        summary=tuple(line for plan in plans for line in plan.summary),
        steps=tuple(step for plan in plans for step in plan.steps),
        warnings=tuple(line for plan in plans for line in plan.warnings),
        why=why,
    )
