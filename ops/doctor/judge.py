"""All rules over one host's evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ops.doctor.finding import Case, HostReport, worst_first

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
    found = [
        finding
        for layer in layers
        for finding in import_module(f"ops.doctor.rules.{layer}").judge(host, evidence)
    ]
    return HostReport(host, worst_first(found), complaints=tuple(evidence.get("complaints", ())))


def catalogue() -> dict[str, tuple[Case, ...]]:
    """Return all cases, by layer."""
    return {layer: import_module(f"ops.doctor.rules.{layer}").CASES for layer in LAYERS}
