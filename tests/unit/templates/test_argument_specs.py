"""Every role's defaults and argument specification say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT

ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))

# What a person writes in an inventory (docs/architecture.md); role preflight judges it.
INVENTORY = {
    "domain",
    "models",
    "nvidia_cuda_repo_key_file",
    "nvidia_cuda_repo_key_fingerprint",
    "nvidia_cuda_repo_url",
    "private_address",
    "remediation",
}


def load(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_defaults_and_argument_specification_agree(role: Path) -> None:
    defaults = load(role / "defaults" / "main.yml")
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    # One that is required, or worked out from other variables, need not be stated twice.
    assert stated == {name: value for name, value in defaults.items() if name in stated}
    assert set(defaults) <= set(options)
    needed = set(options) - set(defaults) - INVENTORY
    assert needed <= {name for name, option in options.items() if option.get("required")}
    assert {name for name in options if not name.startswith(f"{role.name}_")} <= INVENTORY


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_variable_is_described_and_typed(role: Path) -> None:
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    assert [name for name, option in options.items() if not option.get("description")] == []
    assert [name for name, option in options.items() if "type" not in option] == []
