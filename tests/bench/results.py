"""Write what a benchmark measured to docs/results/, with its date and machine."""

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ops.places import ROOT

RESULTS = ROOT / "docs" / "results"


def median_seconds(act: Callable[[], object], times: int) -> float:
    """Median wall-clock seconds of an action."""
    spent = []
    for _ in range(times):
        began = time.monotonic()
        act()
        spent.append(time.monotonic() - began)
    return statistics.median(spent)


def result_path(name: str) -> Path:
    """Where today's result of a name is written."""
    return RESULTS / f"{datetime.datetime.now(datetime.UTC).date().isoformat()}-{name}.md"


def add_to_result(
    name: str,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: str,
    key: int = 1,
) -> Path:
    """Write a table whose tests may run one by one.

    Today's rows of other tests stay; those whose first `key` cells are those of a row given are
    replaced.
    """
    path = result_path(name)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    cells = [line[2:-2].split(" | ") for line in lines if line.startswith("| ")]
    mine = {tuple(row[:key]) for row in rows}
    kept = [row for row in cells[1:] if tuple(row[:key]) not in mine and len(row) == len(headings)]
    return write_result(name, title, headings, [*kept, *rows], notes)


def write_result(
    name: str, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: str
) -> Path:
    """Write a table as docs/results/<date>-<name>.md and print it."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    lines = [
        f"# {title}",
        "",
        f"{today}, {cores} cores, Python {platform.python_version()}, load {load:.1f} at the end. "
        "Written by the run itself; trust the ratios.",
        "",
        "| " + " | ".join(headings) + " |",
        "|" + "---|" * len(headings),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        notes.strip(),
        "",
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = result_path(name)
    path.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    return path
