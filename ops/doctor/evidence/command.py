"""How evidence is read: commands with a deadline, files that may be missing, secrets taken out."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SECONDS = 8.0
"""A deadline of our own: what a sick driver or file system hangs must not hang the doctor."""
MOST_BYTES = 200_000
MISSING, TIMED_OUT = 127, 124
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:"
               "/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")}  # fmt: skip

HIDDEN = "[redacted]"
SECRETS = (
    # Tokens that tell themselves: Hugging Face, OpenAI's kind, GitHub, Slack, AWS, JSON web tokens.
    (re.compile(r"\b(?:hf_|sk-|rk-|gh[pousr]_|github_pat_|xox[abprs]-|AKIA)[\w-]{8,}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # user:password@ of an address.
    (re.compile(r"(\w+://[^\s:/@]*):[^\s@/]+@"), rf"\1:{HIDDEN}@"),
    # --api-key X, password=X, "token": "X", HF_TOKEN=X; not max_tokens=8 or tokenizer=…
    (
        re.compile(
            r"(?i)((?:^|[^a-z0-9])(?:[a-z0-9]*[_-])?(?:password|passwd|secret|token|api[_-]?key)"
            r"[\"']?(?:\s*[=:]\s*|\s+(?=\S*\d)))([\"']?)(?!None\b|null\b|True\b|False\b)"
            r"[^\s\"',;)]{6,}"
        ),
        rf"\1\2{HIDDEN}",
    ),
)


@dataclass(frozen=True)
class Done:
    """What a command ended with; `status` is 127 if there is none, 124 past its deadline."""

    status: int
    output: str

    @property
    def missing(self) -> bool:
        """Whether there is no such command."""
        return self.status == MISSING

    @property
    def lines(self) -> list[str]:
        """Its lines that are not blank."""
        return [line for line in self.output.splitlines() if line.strip()]

    def as_record(self) -> dict[str, Any]:
        """For the document."""
        return asdict(self)


def ask(*words: str, seconds: float = SECONDS, also_errors: bool = True) -> Done:
    """Run a command that changes nothing; its secrets are taken out.

    Args:
        words: The command.
        seconds: Its deadline.
        also_errors: Whether its error stream counts as output.
    """
    streams = subprocess.STDOUT if also_errors else subprocess.DEVNULL
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=streams, check=False, timeout=seconds,
                              env=ENVIRONMENT, cwd="/")  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return Done(TIMED_OUT, text_of(late.stdout or b""))
    except OSError as error:
        return Done(MISSING, str(error))
    return Done(done.returncode, text_of(done.stdout))


def text_of(data: bytes) -> str:
    """Return the end of an output as text without secrets."""
    return redact(data[-MOST_BYTES:].decode(errors="replace"))


def redact(text: str) -> str:
    """Take out what looks like a secret."""
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text


def read(path: str | Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def first(pattern: str, text: str) -> str:
    """Return what a pattern's first group finds first, or nothing."""
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else ""


def rows(text: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """Read the lines of CSV that have as many cells as there are fields."""
    cells = [line.split(", ") for line in text.splitlines()]
    return [dict(zip(fields, row, strict=True)) for row in cells if len(row) == len(fields)]
