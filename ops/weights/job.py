"""A program with its values as one line of JSON: what a host's Python reads and runs.

Nothing of it stands in a list of arguments but the few lines that read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

MODULES = {"ops.weights.manifest": "manifest.py"}
LOADER = """
import json, os, sys, types
if "CREDENTIALS_DIRECTORY" in os.environ:
    line = open(os.environ["CREDENTIALS_DIRECTORY"] + "/job", "rb").read()
else:
    line = b""
    while not line.endswith(b"\\n"):
        data = os.read(0, 1 << 16)
        if not data:
            sys.exit("no job on standard input")
        line += data
job = json.loads(line)
for name in ("ops", "ops.weights", *job["modules"]):
    sys.modules[name] = types.ModuleType(name)
for name, text in {**job["modules"], "ops.weights.program": job["program"]}.items():
    module = sys.modules.setdefault(name, types.ModuleType(name))
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules["ops.weights.program"].main(job["values"])
"""


def make_job(program: str, values: Mapping[str, Any]) -> str:
    """Return the line for LOADER.

    Args:
        program: Name of a program of this folder, such as `fetch_program.py`.
        values: What its `main` is called with.
    """
    folder = files("ops.weights")
    return (
        json.dumps(
            {
                "modules": {
                    name: folder.joinpath(file).read_text(encoding="utf-8")
                    for name, file in MODULES.items()
                },
                "program": folder.joinpath(program).read_text(encoding="utf-8"),
                "values": dict(values),
            }
        )
        + "\n"
    )
