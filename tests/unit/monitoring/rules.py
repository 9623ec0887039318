"""The alert rules as the role renders them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
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


@cache
def rules() -> list[Rule]:
    found = []
    for subject in SUBJECTS:
        for group in yaml.safe_load(rendered(subject))["groups"]:
            for rule in group["rules"]:
                named = rule.get("alert", ""), rule.get("record", "")
                found.append(Rule(*named, str(rule["expr"]), rule))
    return found


@cache
def alerts() -> dict[str, Rule]:
    return {rule.alert: rule for rule in rules() if rule.alert}


def behind(alert: str) -> set[str]:
    """Name what an alert depends on: itself, and what it reads of other alerts and records."""
    known = {rule.alert or rule.record: rule.expression for rule in rules()}
    found: set[str] = set()
    todo = {alert}
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= known.keys() & set(re.findall(r"[\w:]+", known[name])) - found
    return found


def write_behind(alert: str, folder: Path) -> Path:
    """Write an alert with what it depends on, in the files' order; others cost promtool time."""
    wanted = behind(alert)
    document = {"groups": [{"name": alert, "rules": [
        rule.document for rule in rules() if (rule.alert or rule.record) in wanted
    ]}]}  # fmt: skip
    path = folder / f"{alert}.yml"
    path.write_text(yaml.safe_dump(document))
    return path


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
