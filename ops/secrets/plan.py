"""What rotating secrets means, step by step. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ops.app.plan import Choices, alone_warnings, check_choices, restart_steps
from ops.app.state import Instance
from ops.errors import InputError
from ops.operations.plan import Plan, Step
from ops.secrets.catalogue import APP, CERTIFICATES, DATA, REMEDIATOR, WATCH, Secret
from ops.secrets.rotation import BOTH, FINAL, NONE, SWITCHED

ORDER = (CERTIFICATES, DATA, APP, WATCH, REMEDIATOR)


def plan_rotation(
    host: str,
    secrets: Sequence[Secret],
    fingerprints: Mapping[str, str],
    found: Sequence[Instance],
    choices: Choices,
) -> Plan:
    """Plan to replace secrets: both values are taken, whoever shows one moves, the old one goes.

    Args:
        host: Whose the steps are that lay things down: the keeper.
        secrets: Which.
        fingerprints: Of the values that follow, by name.
        found: All instances of the app.
        choices: How they restart.

    Raises:
        InputError: There is nothing to rotate, or a choice cannot be.
    """
    check_choices(choices)
    if not secrets:
        raise InputError("there is no secret to rotate", cure="ops secrets list")
    in_app = any(secret.app for secret in secrets)
    told_first = any(secret.told_first for secret in secrets)
    told_last = any(secret.told_last for secret in secrets)

    def stage(to: str, before: str, layers: set[str], title: str, rolled: bool) -> Step:
        values: dict[str, Any] = {
            "to": to,
            "before": before,
            "fingerprints": dict(fingerprints),
            "layers": [layer for layer in ORDER if layer in layers],
            "instances": [asdict(instance) for instance in found] if rolled else [],
            "drain_seconds": choices.drain_seconds,
            "ready_seconds": choices.ready_seconds,
        }
        return Step("secrets.stage", host, title, values)

    checked = {layer for secret in secrets for layer in secret.checked}
    shown = {layer for secret in secrets for layer in secret.shown}
    steps = [stage(BOTH, NONE, checked, "old and new are both taken", rolled=told_last)]
    steps += restart_steps(found, choices) if told_first else []
    steps.append(stage(SWITCHED, BOTH, shown, "the new one is shown", rolled=in_app))
    steps += restart_steps(found, choices) if in_app else []
    steps.append(stage(FINAL, SWITCHED, checked, "the old one is taken no more", rolled=told_last))
    steps += restart_steps(found, choices) if told_last else []
    names = ", ".join(secret.name for secret in secrets)
    rolls = ("not", "once", "twice", "three times")[told_first + in_app + told_last]
    head = f"{names}: {len(found)} instance(s) of the app restart {rolls}"
    warnings = tuple(secret.caution for secret in secrets if secret.caution)
    warnings += alone_warnings(choices, len(found)) if in_app or told_last else ()
    return Plan("secrets rotate", names, (head,), tuple(steps), warnings, choices.why)
