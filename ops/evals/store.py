"""Baselines: what each served revision scored, kept on the fleet's keeper for every operator."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from shlex import quote
from typing import Any

from ops.evals.report import FORMAT, Report
from ops.fleet.model import Fleet
from ops.operations.keeper import keeper
from ops.remote import connect, run

FOLDER = "/var/lib/rackhand/evals"


def path_of(model: str, entry: Mapping[str, Any], suite: str) -> str:
    """Where a baseline lies: flags and vLLM are part of what was judged, its source is not."""
    told = {key: value for key, value in sorted(entry.items()) if key != "source"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    return f"{FOLDER}/{model}/{entry['revision']}-{digest}/{suite}.json"


def read(fleet: Fleet, model: str, entry: Mapping[str, Any], suite: str) -> Report | None:
    """Return the baseline of what is served so, None where none was stored.

    Raises:
        RemoteError: The keeper cannot be reached.
    """
    host, path = keeper(fleet), quote(path_of(model, entry, suite))
    with connect(fleet, host) as connection:
        text = run(connection, host, f"cat {path} 2>/dev/null || echo null")
    record = json.loads(text)
    return Report.from_record(record) if record and record["format"] == FORMAT else None


def write(fleet: Fleet, model: str, entry: Mapping[str, Any], report: Report) -> None:
    """Store a result as the baseline of what is served so.

    Raises:
        RemoteError: The keeper cannot be reached.
    """
    host, path = keeper(fleet), path_of(model, entry, report.suite)
    text = base64.b64encode(json.dumps(report.as_baseline()).encode()).decode()
    folder, target = quote(path.rpartition("/")[0]), quote(path)
    with connect(fleet, host) as connection:
        run(
            connection, host,
            f"mkdir -p {folder} && echo {text} | base64 -d > {target}.new"
            f" && mv {target}.new {target}",
        )  # fmt: skip
