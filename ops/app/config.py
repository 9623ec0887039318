"""What the app must know of a model, and its place in the app's configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from ops.errors import OpsError

CONTEXT = 8192
OUTPUT = 1024
"""What role agent_app takes where an entry says nothing; a test holds both against each other."""


@dataclass(frozen=True)
class Bounds:
    """What the app knows of a model.

    Attributes:
        context_length: Tokens that it takes in all.
        max_output_tokens: The most that the app lets it answer.
        revision: Where the app has a response cache, which tells answers apart by it; else empty.
    """

    context_length: int
    max_output_tokens: int
    revision: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any], *, revision: bool = False) -> Bounds:
        """The bounds of an entry of the inventory's `models:`, as role agent_app works them out."""
        context = int(entry.get("max_model_len", CONTEXT))
        output = int(entry.get("max_output_tokens", min(OUTPUT, context // 2)))
        return cls(context, output, str(entry.get("revision", "")) if revision else "")

    def least(self, other: Bounds) -> Bounds:
        """What both allow, of this one's revision."""
        return Bounds(
            min(self.context_length, other.context_length),
            min(self.max_output_tokens, other.max_output_tokens),
            self.revision,
        )

    def told(self) -> str:
        """For people."""
        told = f"{self.context_length} tokens, answers of {self.max_output_tokens}"
        return f"{self.revision}, {told}" if self.revision else told


def with_bounds(text: str, model: str, bounds: Bounds) -> str:
    """Return a configuration with other bounds of a model, all else to the byte.

    Args:
        text: `/etc/agent_app/config.yml` as role agent_app renders it.
        model: The model's name.
        bounds: What the app is to know.

    Raises:
        OpsError: The configuration does not have the model.
    """
    name = re.escape(model)
    block = re.compile(
        rf"^models:\n(?:^ .*\n)*?^  ['\"]?{name}['\"]?:\n(?P<body>(?:^    .*\n)+)", re.MULTILINE
    )
    found = block.search(text)
    if not found:
        raise OpsError(
            f"the app's configuration has no model {model}",
            place="/etc/agent_app/config.yml",
            cure="ops provision --tags app",
        )
    body = found["body"]
    for key, value in asdict(bounds).items():
        line = "    " + yaml.safe_dump({key: value}, allow_unicode=True)
        body = re.sub(rf"^    {key}: .*\n", lambda _, line=line: line, body, flags=re.MULTILINE)
    start, end = found.span("body")
    return text[:start] + body + text[end:]
