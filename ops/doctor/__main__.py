"""`python3 -m ops.doctor [--json | --evidence]`: `ops doctor --local` where nothing is installed.

Run it in a checkout; it needs Python 3.10 or later and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

from ops.doctor.drawing import draw
from ops.doctor.evidence import program
from ops.doctor.local import examine

KNOWN = ("--json", "--evidence", "--local")


def main(arguments: list[str]) -> int:
    """Print the report, as JSON by choice, or the evidence; return the exit status."""
    if unknown := [word for word in arguments if word not in KNOWN]:
        print(f"error: {unknown[0]} is not known here: {' '.join(KNOWN)}", file=sys.stderr)
        return 2
    if "--evidence" in arguments:
        print(json.dumps(program.local(), indent=2), flush=True)
        return 0
    report = examine()
    if "--json" in arguments:
        print(json.dumps(report.as_record(), indent=2), flush=True)
    else:
        for line in draw(report, shutil.get_terminal_size().columns):
            print("".join(text for text, _style in line).rstrip())
    return report.exit_code


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # a GPU that hangs must not keep us
