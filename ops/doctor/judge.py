"""All rules over one host's evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ops.doctor.finding import Case, Finding, HostReport, worst_first

LOCAL = ("driver", "gpu", "host")
LAYERS = (*LOCAL, "engine", "data", "edge", "app", "fleet")
"""In the order of causes: a driver that is gone explains an engine that is down."""


def judge(host: str, evidence: Mapping[str, Any], layers: Sequence[str] = LAYERS) -> HostReport:
    """Return what ails a host.

    Args:
        host: The inventory's name.
        evidence: What `evidence/program.py` told, and what the asker knows beside it.
        layers: Whose rules.
    """
    found: list[Finding] = []
    complaints = [str(each) for each in evidence.get("complaints", ())]
    for layer in layers:
        try:
            found += import_module(f"ops.doctor.rules.{layer}").judge(host, evidence)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            # What one layer cannot read must not hide what the others find.
            complaints.append(f"rules of {layer}: {type(error).__name__}: {error}")
    return HostReport(host, worst_first(found), complaints=tuple(complaints))


def catalogue() -> dict[str, tuple[Case, ...]]:
    """Return all cases, by layer."""
    return {layer: import_module(f"ops.doctor.rules.{layer}").CASES for layer in LAYERS}
