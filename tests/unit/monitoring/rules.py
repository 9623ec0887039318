"""The alert rules as the role renders them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rendering import BOOKWORM, ROOT, Role

SUBJECTS = ("gpu", "engine", "app", "edge", "data", "host", "watch")


@dataclass(frozen=True)
class Rule:
    """An alert, or with an empty `alert` what is recorded for others."""

    alert: str
    record: str
    expression: str
    document: dict[str, Any]


def rendered(subject: str, facts: dict[str, str] = BOOKWORM, **variables: Any) -> str:
    return Role("prometheus", facts, **variables).render(f"rules/{subject}.yml.j2")


def write(folder: Path, **variables: Any) -> list[Path]:
    """Write all rule files as a host gets them."""
    paths = []
    for subject in SUBJECTS:
        paths.append(folder / f"{subject}.yml")
        paths[-1].write_text(rendered(subject, **variables))
    return paths


def rules() -> list[Rule]:
    found = []
    for subject in SUBJECTS:
        for group in yaml.safe_load(rendered(subject))["groups"]:
            for rule in group["rules"]:
                named = rule.get("alert", ""), rule.get("record", "")
                found.append(Rule(*named, str(rule["expr"]), rule))
    return found


def alerts() -> dict[str, Rule]:
    return {rule.alert: rule for rule in rules() if rule.alert}


KEYWORDS = {
    *("and", "or", "unless", "bool", "by", "on", "without", "ignoring"),
    *("sum", "max", "min", "count", "avg"),
    *("group_left", "group_right", "offset", "inf", "nan"),
}


def metrics_of(expression: str) -> set[str]:
    """Name the metrics that an expression reads."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\{[^}]*\}", "", text)
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", r"\1", text)
    names = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(\s*\()?", text)
    return {name for name, call in names if not call and name not in KEYWORDS}


def runbooks() -> set[str]:
    return {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README"}
