"""Which findings of a judge are known, and why each is left: explained.yml beside this file."""

import re
from pathlib import Path
from typing import Any

import yaml

EXPLAINED = Path(__file__).with_name("explained.yml")


def explanations(judge: str) -> dict[str, Any]:
    """The judge's part: a reason by a regular expression over identifiers."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8"))
    return content[judge]


def reason(known: dict[str, Any], finding: str) -> str:
    """Why a finding is left; empty where nobody has said."""
    return next((str(why) for key, why in known.items() if re.fullmatch(key, finding)), "")


def unexplained(judge: str, findings: dict[str, str]) -> dict[str, str]:
    """The findings that nobody has explained."""
    known = explanations(judge)
    return {name: said for name, said in findings.items() if not reason(known, name)}


def recorded_exposure(unit: str) -> tuple[float, str]:
    """The most that systemd-analyze may say of a unit, and why; (0, "") where nobody has said."""
    known = explanations("exposure")
    most, why = next((each for key, each in known.items() if re.fullmatch(key, unit)), (0, ""))
    return float(most), str(why)
