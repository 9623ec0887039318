"""Writes the tables of docs/doctor.md from the catalogue: `python -m tests.unit.doctor.table`."""

from __future__ import annotations

import re

from ops.doctor.drawing import filled
from ops.doctor.finding import Case
from ops.doctor.judge import catalogue
from ops.places import ROOT

PAGE = ROOT / "docs/doctor.md"
BEGIN, END = "<!-- cases -->", "<!-- end of cases -->"
TITLES = {
    "driver": "Driver", "gpu": "GPUs", "host": "The machine", "engine": "Engines",
    "data": "PostgreSQL and Redis", "edge": "nginx and the certificate", "app": "Agent app",
    "fleet": "Operations and inventory",
}  # fmt: skip


def row(case: Case) -> str:
    """One case as a line of a table."""
    texts = (filled(text).replace("|", "\\|") for text in (case.symptom, case.cause, case.cure))
    return f"| `{case.name}` | {case.severity} | {' | '.join(texts)} |"


def tables() -> str:
    """All cases, a table a layer."""
    parts = [BEGIN]
    for layer, cases in catalogue().items():
        parts += [
            f"### {TITLES[layer]}",
            "",
            "| Case | | Symptom | Cause | Cure |",
            "|---|---|---|---|---|",
        ]
        parts += [*map(row, cases), ""]
    return "\n".join([*parts, END])


def main() -> None:
    """Write them."""
    text = PAGE.read_text()
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: tables(), text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
