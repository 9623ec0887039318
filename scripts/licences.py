#!/usr/bin/env python3
"""Name the licence of every package that our locks pin, and refuse one that is not allowed.

`record` writes requirements/licences.json and docs/licences.md: from this environment's metadata,
from other environments (their site-packages, named after it), or from the index (PEP 658). `check`
needs no network: every pin is recorded, what is installed says the same, all is allowed by
requirements/licences.yml.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.parser import Parser
from pathlib import Path
from typing import Any

import httpx2
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ops.bundle import licences, locks  # noqa: E402 - the checkout's own
from ops.bundle.wheels import Indexes  # noqa: E402

RECORD = ROOT / "requirements/licences.json"
RULES = ROOT / "requirements/licences.yml"
PAGE = ROOT / "docs/licences.md"
HEAD = """\
# Licences of what Rackhand installs

Written by `scripts/licences.py record` from each package's own metadata; `make lint` holds it
against the locks and the allow-list (`requirements/licences.yml`). `unknown` is what the metadata
did not tell: read the file in the wheel. Debian's packages carry theirs in
`/usr/share/doc/<package>/copyright`. Weights of models have their own, which you accept.

"""


def main(arguments: list[str]) -> int:
    """Record or check."""
    if arguments[:1] == ["record"]:
        return record([Path(each) for each in arguments[1:]])
    problems = list(
        check(pinned(), json.loads(RECORD.read_text()), yaml.safe_load(RULES.read_text()))
    )
    for problem in problems:
        print(f"licences: {problem}")
    return 1 if problems else 0


def pinned() -> dict[str, list[str]]:
    """`name==version` of every pin → the locks that have it."""
    found: dict[str, list[str]] = {}
    for lock in locks.all_locks():
        for pin in locks.read(lock):
            places = found.setdefault(f"{pin.name}=={pin.version}", [])
            places.append(str(lock.relative_to(ROOT)))
    return dict(sorted(found.items()))


def installed(paths: Iterable[Path] = ()) -> dict[str, str]:
    """Licences of the packages in this environment, or in folders of others."""
    where = {"path": [str(path) for path in paths]} if paths else {}
    found = {}
    for each in importlib.metadata.distributions(**where):
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        found[f"{name}=={each.version}"] = licences.of_metadata(each.metadata)
    return found


def record(environments: list[Path]) -> int:
    """Look every new pin up and write the record and the page: that of a version never changes."""
    wanted = pinned()
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    known = recorded | (installed(environments) if environments else {}) | installed()
    missing = [each for each in wanted if each not in known]
    with httpx2.Client(timeout=60) as client, ThreadPoolExecutor(4) as pool:
        indexes = Indexes(client)
        pins = {f"{p.name}=={p.version}": p for lock in locks.all_locks() for p in locks.read(lock)}
        known |= dict(
            zip(missing, pool.map(lambda k: of_index(indexes, pins[k]), missing), strict=True)
        )
    found = {each: known[each] for each in wanted}
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(page(wanted, found, yaml.safe_load(RULES.read_text())))
    return main(["check"])


def of_index(indexes: Indexes, pin: locks.Pin) -> str:
    """The licence that an index tells of a wheel without the wheel (PEP 658)."""
    for offer in itertools.chain.from_iterable(indexes.offers(pin)):
        if offer.file.endswith(".whl"):
            answer = indexes.client.get(f"{offer.url}.metadata", follow_redirects=True)
            if answer.is_success:
                return licences.of_metadata(Parser().parsestr(answer.text))
    return licences.UNKNOWN


def check(
    wanted: dict[str, list[str]], recorded: dict[str, str], rules: dict[str, Any]
) -> Iterator[str]:
    """What is wrong, a line each."""
    here = installed()
    for each, places in wanted.items():
        licence = recorded.get(each)
        if licence is None:
            yield f"{each} ({places[0]}) is not recorded: scripts/licences.py record"
        elif here.get(each, licence) != licence:
            yield f"{each} says {here[each]!r}, recorded is {licence!r}: scripts/licences.py record"
        elif licence == licences.UNKNOWN and each.partition("==")[0] in rules["untold"]:
            continue
        elif meant(each, licence, rules) not in rules["allowed"]:
            yield f"{each} ({places[0]}): {licence!r} is not on the allow-list of {RULES.name}"
    for name in sorted(
        {*rules["packages"], *rules["untold"]} - {each.partition("==")[0] for each in wanted}
    ):
        yield f"{RULES.name}: {name} is pinned nowhere: remove its entry"


def meant(each: str, licence: str, rules: dict[str, Any]) -> str:
    """The SPDX expression that a package's words mean."""
    own = rules["packages"].get(each.partition("==")[0])
    return str(own["licence"] if own else rules["meant"].get(licence, licence))


def page(wanted: dict[str, list[str]], found: dict[str, str], rules: dict[str, Any]) -> str:
    """The list for a person."""
    lines = ["| package | version | licence | in |", "|---|---|---|---|"]
    for each, places in wanted.items():
        name, _, version = each.partition("==")
        told = meant(each, found[each], rules)
        lines.append(f"| {name} | {version} | {told} | {', '.join(sorted(set(places)))} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
