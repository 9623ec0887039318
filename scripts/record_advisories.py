#!/usr/bin/env python3
"""Record the Python advisories of the packages that our locks pin, for an audit without network.

Reads a clone (or bare copy) of https://github.com/pypa/advisory-database, whose data is licensed
CC-BY-4.0, and writes requirements/advisories.json. Run it again for a newer state or new locks:

    .venv/bin/python scripts/record_advisories.py PATH/OF/advisory-database
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ops.bundle import locks  # noqa: E402 - the checkout's own

RECORD = ROOT / "requirements/advisories.json"
SOURCE = "https://github.com/pypa/advisory-database"
LONGEST = 160  # letters of an advisory's words that are kept


def main(arguments: list[str]) -> int:
    """Record the advisories of the clone that the first argument names."""
    clone = arguments[0]
    commit, moment = git(clone, "log", "-1", "--format=%H %ct").split()
    names = {pin.name for lock in locks.all_locks() for pin in locks.read(lock)}
    packages: dict[str, list[dict[str, Any]]] = {}
    for name, text in advisories(clone, names):
        found = advisory(yaml.safe_load(text))
        if found:
            packages.setdefault(name, []).append(found)
    date = datetime.datetime.fromtimestamp(int(moment), datetime.UTC).date().isoformat()
    record = {
        "source": SOURCE,
        "licence": "CC-BY-4.0, by the authors of the PyPI Advisory Database",
        "commit": commit,
        "date": date,
        "covers": sorted(names),
        "packages": {name: packages[name] for name in sorted(packages)},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    count = sum(map(len, packages.values()))
    print(f"{RECORD.name}: {count} advisories of {len(packages)} packages, state of {date}")
    return 0


def git(clone: str, *words: str) -> str:
    """Ask git about the clone."""
    command = ["git", "-C", clone, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def advisories(clone: str, names: set[str]) -> Iterator[tuple[str, str]]:
    """Text of every advisory of those packages, with the package's normal name."""
    for path in git(clone, "ls-tree", "-r", "--name-only", "HEAD", "vulns/").splitlines():
        folder = path.split("/")[1]
        name = re.sub(r"[-_.]+", "-", folder).lower()
        if name in names and path.endswith(".yaml"):
            yield name, git(clone, "show", f"HEAD:{path}")


def advisory(content: dict[str, Any]) -> dict[str, Any] | None:
    """What an audit needs of an advisory; None of one that was withdrawn."""
    if content.get("withdrawn"):
        return None
    ranges, versions = [], []
    for affected in content["affected"]:
        bounded = [r for r in affected.get("ranges", ()) if r["type"] == "ECOSYSTEM"]
        ranges += [span for each in bounded for span in spans(each["events"])]
        if not bounded:
            versions += affected.get("versions", [])
    words = " ".join(str(content.get("summary") or content.get("details") or "").split())
    return {
        "id": content["id"],
        "aliases": content.get("aliases", []),
        "words": words[:LONGEST],
        "ranges": ranges,
        "versions": [str(version) for version in versions],
    }


def spans(events: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Pairs of OSV's events: from `introduced` up to `fixed`, or through `last_affected`."""
    start = "0"
    for event in events:
        if "introduced" in event:
            start = str(event["introduced"])
        elif "fixed" in event:
            yield {"introduced": start, "fixed": str(event["fixed"])}
            start = ""
        elif "last_affected" in event:
            yield {"introduced": start, "last_affected": str(event["last_affected"])}
            start = ""
    if start:
        yield {"introduced": start}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
