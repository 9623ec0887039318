"""How long `ops --help` takes, beside an empty Python and the import of its framework alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from results import median_seconds, write_result

TIMES = 15
LIMIT_SECONDS = 0.150

pytestmark = pytest.mark.bench


def test_help_is_quick() -> None:
    ways = {
        "`python -c pass`": [sys.executable, "-c", "pass"],
        "`python -c 'import typer'`": [sys.executable, "-c", "import typer"],
        "`ops --help`": [str(Path(sys.executable).parent / "ops"), "--help"],
    }
    found = {
        name: median_seconds(
            lambda words=words: subprocess.run(words, check=True, capture_output=True), TIMES
        )
        for name, words in ways.items()
    }
    floor = found["`python -c pass`"]
    rows = [
        (name, f"{spent * 1000:.0f} ms", f"{spent / floor:.1f}") for name, spent in found.items()
    ]
    write_result(
        "help",
        "ops --help",
        ("command", "median", "times an empty Python"),
        rows,
        f"Median of {TIMES}. The promise is {LIMIT_SECONDS * 1000:.0f} ms.",
    )
    assert found["`ops --help`"] < LIMIT_SECONDS
