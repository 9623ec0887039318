"""Schemathesis, which calls every route with data that fits its schema and data that does not."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SEED = 20261125
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
]
"""Not negative_data_rejection: pydantic takes "1" for 1 and false for 0, and so do our routes."""


@dataclass(frozen=True)
class Judged:
    """What it said."""

    sound: bool
    output: str

    @property
    def cases(self) -> int:
        """How many requests it judged."""
        found = re.search(r"(\d+) generated", self.output)
        return int(found[1]) if found else 0


def judge_routes(
    document: str,
    key: str,
    folder: Path,
    *,
    phases: str,
    seconds: int,
    examples: int,
    url: str = "",
) -> Judged:
    """Judge a running app by its OpenAPI document.

    Args:
        document: Address or path of it.
        key: Of the scopes `chat` and `admin`.
        folder: Where settings are laid down.
        phases: Of schemathesis.
        seconds: Most that they take together.
        examples: Most of them per route.
        url: Where the app listens, unless that is where the document is.
    """
    settings = folder / "schemathesis.toml"
    settings.write_text(f'[headers]\nAuthorization = "Bearer {key}"\n')
    process = subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "--config-file", settings, "run",
         document, *(["--url", url] if url else []),
         "--checks", ",".join(CHECKS), "--seed", str(SEED),
         "--phases", phases, "--max-examples", str(examples),
         "--max-time", str(seconds), "--request-timeout", "20", "--continue-on-failure",
         "--suppress-health-check", "all", "--warnings", "off", "--no-color"],
        cwd=folder, capture_output=True, text=True, timeout=10 * seconds + 120,
    )  # fmt: skip
    sound = process.returncode == 0 and "No issues found" in process.stdout
    return Judged(sound, process.stdout[-8000:] + process.stderr[-2000:])
