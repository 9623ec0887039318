#!/usr/bin/env python3
"""Hold every lock's pins against the recorded advisories, without network.

A finding is told until the pin moves or requirements/audit.yml explains it; an explanation has a
date after which it counts no more, and one that explains nothing is told as well. A record that is
older than MOST_DAYS is a finding itself. Exit status: 0 nothing, 1 findings, 2 could not tell.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ops.bundle import locks  # noqa: E402 - the checkout's own
from ops.errors import OpsError  # noqa: E402

RECORD = ROOT / "requirements/advisories.json"
EXPLAINED = ROOT / "requirements/audit.yml"
MOST_DAYS = 90
STALE = "stale-record"


@dataclass(frozen=True)
class Finding:
    """A pin with a known fault, or a fault of the audit's own data."""

    id: str
    package: str
    where: str
    words: str


def main(arguments: list[str]) -> int:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("locks", nargs="*", type=Path, help="default: every lock of this checkout")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--explained", type=Path, default=EXPLAINED)
    parser.add_argument("--today", type=datetime.date.fromisoformat, default=datetime.date.today())
    chosen = parser.parse_args(arguments)
    try:
        record = json.loads(chosen.record.read_text())
        explained = yaml.safe_load(chosen.explained.read_text()) or []
        wanted = chosen.locks or locks.all_locks()
        found = list(audit(wanted, record, chosen.today))
        open_ones, notes = judge(found, explained, chosen.today, bool(chosen.locks))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, OpsError) as problem:
        print(f"audit: cannot tell: {problem}", file=sys.stderr)
        return 2
    for finding in open_ones:
        print(f"{finding.where}: {finding.package}: {finding.id}: {finding.words}")
    for note in notes:
        print(note)
    open_count, borne = len(open_ones) + len(notes), len(found) - len(open_ones)
    print(
        f"{len(wanted)} locks against {record['source']} of {record['date']}: "
        f"{open_count} findings, {borne} explained"
    )
    return 1 if open_ones or notes else 0


def audit(
    wanted: Iterable[Path], record: dict[str, Any], today: datetime.date
) -> Iterator[Finding]:
    """Every fault that is known."""
    days = (today - datetime.date.fromisoformat(record["date"])).days
    if days > MOST_DAYS:
        words = f"the record is {days} days old; scripts/record_advisories.py makes it anew"
        yield Finding(STALE, "-", RECORD.name, words)
    covered = set(record["covers"])
    for lock in wanted:
        where = str(lock.relative_to(ROOT)) if lock.is_relative_to(ROOT) else str(lock)
        for pin in locks.read(lock):
            if pin.name not in covered:
                words = "the record was made before this pin; record the advisories anew"
                yield Finding("not-covered", pin.name, where, words)
            for advisory in record["packages"].get(pin.name, ()):
                if is_affected(Version(Version(pin.version).public), advisory):
                    name = f"{pin.name} {pin.version}"
                    yield Finding(advisory["id"], name, where, advisory["words"])


def is_affected(version: Version, advisory: dict[str, Any]) -> bool:
    """Whether a version is one that an advisory is about."""
    if str(version) in advisory["versions"]:
        return True
    return any(is_within(version, span) for span in advisory["ranges"])


def is_within(version: Version, span: dict[str, str]) -> bool:
    """Whether a version lies between where a fault came and where it went."""
    if version < Version(span["introduced"]):
        return False
    if "fixed" in span:
        return version < Version(span["fixed"])
    return "last_affected" not in span or version <= Version(span["last_affected"])


def judge(
    found: list[Finding], explained: list[dict[str, Any]], today: datetime.date, partly: bool
) -> tuple[list[Finding], list[str]]:
    """Findings that stay open, and what is wrong with the explanations.

    Args:
        found: All findings.
        explained: Entries of `id`, `package` (none for the record's own), `until` and `reason`.
        today: Now.
        partly: Whether only some locks were asked, so that explanations may be idle.
    """
    good, notes = set(), []
    for entry in explained:
        key = entry["id"], str(entry.get("package", "-"))
        if not str(entry.get("reason", "")).strip():
            notes.append(f"{EXPLAINED.name}: {key[0]} has no reason")
        elif entry["until"] < today:
            notes.append(f"{EXPLAINED.name}: the explanation of {key[0]} ended on {entry['until']}")
        else:
            good.add(key)
    keys = {(finding.id, finding.package.split()[0]) for finding in found}
    idle = [] if partly else sorted(good - keys)
    notes += [f"{EXPLAINED.name}: {i} of {p} explains nothing: remove it" for i, p in idle]
    return [f for f in found if (f.id, f.package.split()[0]) not in good], notes


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
