"""All rules over one host's evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ops.doctor.finding import Case, HostReport, worst_first

LAYERS = ("driver", "gpu", "host")


def judge(host: str, evidence: Mapping[str, Any]) -> HostReport:
    """Return what ails a host.

    Args:
        host: The inventory's name.
        evidence: What `evidence/program.py` told, and what the asker knows beside it.
    """
    found = [
        finding
        for layer in LAYERS
        for finding in import_module(f"ops.doctor.rules.{layer}").judge(host, evidence)
    ]
    return HostReport(host, worst_first(found), complaints=tuple(evidence.get("complaints", ())))


def catalogue() -> dict[str, tuple[Case, ...]]:
    """Return all cases, by layer."""
    return {layer: import_module(f"ops.doctor.rules.{layer}").CASES for layer in LAYERS}
