"""What a Python distribution says of its licence, in its own metadata."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
LONGEST = 100  # letters; more is a sentence in the place of a name
PREFIX = "License :: "


def of_wheel(path: Path) -> str:
    """The licence that a wheel names: an SPDX expression, else its classifiers or own words."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            folder, _, file = name.rpartition("/")
            if file == "METADATA" and folder.endswith(".dist-info") and "/" not in folder:
                return of_metadata(Parser().parsestr(archive.read(name).decode("utf-8", "replace")))
    return UNKNOWN


def of_metadata(metadata: Message | Any) -> str:
    """The same of parsed metadata (PEP 639 first, then what came before it)."""
    get: Callable[[str], str | None] = metadata.get
    if expression := get("License-Expression"):
        return expression.strip()
    words = (get("License") or "").strip().splitlines() or [""]
    named = [
        each.removeprefix(PREFIX).removeprefix("OSI Approved :: ")
        for each in metadata.get_all("Classifier") or []
        if each.startswith(PREFIX) and each != f"{PREFIX}OSI Approved"
    ]
    if named and (len(words) > 1 or not is_a_name(words[0])):
        return " AND ".join(sorted(named))
    return words[0].strip() if is_a_name(words[0]) else UNKNOWN


def is_a_name(words: str) -> bool:
    """Whether words name a licence, and are not the beginning of its text."""
    return bool(words.strip(" =-")) and len(words) <= LONGEST and words.upper() != "UNKNOWN"
