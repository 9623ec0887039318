# Copyright: the Rackhand founders
"""The driver's record on a host: what is installed, and what was before it, for the way back."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    HAS_KIND,
    is_driver,
    upstream,
)

State = dict[str, Any]


def state(channel: str, packages: Mapping[str, str]) -> State:
    """One state of a host's driver; empty if there is no driver.

    Args:
        channel: archive or cuda; empty for what was there before Rackhand, whose names tell it.
        packages: Exact versions by name.
    """
    versions = [upstream(version) for name, version in packages.items() if is_driver(name)]
    version = next(filter(None, versions), "")
    if not version:
        return {}
    kinds = [name for name in packages if HAS_KIND.match(name)]
    return {
        "channel": channel or ("archive" if any("-server" in n for n in packages) else "cuda"),
        "branch": version.partition(".")[0],
        "version": version,
        "module": "open" if any("-open" in name for name in kinds) else "proprietary",
        "packages": dict(sorted(packages.items())),
    }


def advance(known: str, now: State, found: State) -> State:
    """The record once `now` is true.

    A record whose packages are still these stays as it is. One that a run left behind, because it
    died before it could write, is the state before this one.

    Args:
        known: Text of the record so far.
        now: What is installed.
        found: What this run found installed before it changed anything.
    """
    try:
        record = json.loads(known)
    except ValueError:
        record = {}
    if record.get("packages") == now["packages"]:
        return {**now, "previous": record.get("previous") or {}}
    previous = {k: v for k, v in record.items() if k != "previous"} or found
    return {**now, "previous": previous if previous.get("packages") != now["packages"] else {}}


def render(record: State) -> str:
    """The record as Ansible reads it from facts.d."""
    return json.dumps(record, indent=1) + "\n"


def replace(path: str, text: str) -> None:
    """Write a file in place of another, whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".rackhand-", dir=os.path.dirname(path))
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def is_older(target: str, sources: Iterable[str]) -> bool:
    """Whether a file was made before one of its sources last changed, as make(1) would ask."""
    if not os.path.exists(target):
        return False
    made = os.stat(target).st_mtime_ns
    return any(os.stat(s).st_ctime_ns > made for s in sources if os.path.exists(s))
