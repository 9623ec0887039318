"""What is answered: a script in YAML, dialogues of the demo model, or an echo of the question."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+$")
ECHO = "You said:"
ECHO_TOKENS = 64
FILLER = "and so on , until enough has been said ,"
GARBAGE = "\ufffd zq ]] <|x|> 0x7f }} qq"


def tokens_of(text: str) -> list[str]:
    """Words and marks, each with the blanks before it; joined they are the text again."""
    return TOKEN.findall(text)


def token_id(token: str) -> int:
    """A stable number for a token."""
    return zlib.crc32(token.encode()) % 50_000


@dataclass(frozen=True)
class Rule:
    """An answer to questions that a regular expression finds.

    Attributes:
        match: Searched in the last user message, capitals ignored.
        text: The answer; after the tool's result where there is a tool.
        tool: Called first, if the request offers it.
        arguments: Of the call.
    """

    match: re.Pattern[str]
    text: str
    tool: str | None = None
    arguments: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """What to say: text, or a call of a tool."""

    text: str = ""
    tool: str | None = None
    arguments: dict[str, Any] | None = None


def read_script(path: Path) -> list[Rule]:
    """Rules of a script: `answers: [{match, text, tool, arguments}, …]`."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return [
        Rule(
            re.compile(rule["match"], re.IGNORECASE | re.DOTALL),
            rule.get("text", ""),
            rule.get("tool"),
            rule.get("arguments"),
        )
        for rule in content.get("answers", [])
    ]


def read_dialogues(path: Path) -> list[Rule]:
    """Rules that give the demo model's answers, from its `dialogues.yml`."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    rules = []
    for dialogue in content["dialogues"]:
        asked = "|".join(re.escape(question.strip(" ?!.")) for question in dialogue["ask"])
        tool = "search_knowledge" if "search" in dialogue else None
        rules.append(
            Rule(
                re.compile(rf"\s*(?:{asked})[\s?!.]*\Z", re.IGNORECASE),
                dialogue["answer"],
                tool,
                {"query": dialogue["search"]} if tool else None,
            )
        )
    return rules


def choose(rules: list[Rule], question: str, tools: dict[str, Any], result_given: bool) -> Answer:
    """The answer to a question.

    Args:
        rules: The first that matches is taken.
        question: Text of the last user message.
        tools: Tools that may be called now, by name.
        result_given: The conversation already has a tool's result for this question.
    """
    for rule in rules:
        if rule.match.search(question):
            if rule.tool in tools and not result_given:
                return Answer(tool=rule.tool, arguments=rule.arguments or {})
            return Answer(rule.text)
    return Answer(f"{ECHO} {question.strip()}")


def forced_call(name: str, tool: dict[str, Any]) -> Answer:
    """A call of a tool that the request insists on, with arguments that fit its schema."""
    schema = tool.get("parameters") or {}
    required = schema.get("required") or list(schema.get("properties", {}))
    known = schema.get("properties", {})
    return Answer(tool=name, arguments={key: _sample(known.get(key, {})) for key in required})


def _sample(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    samples = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
    return samples.get(schema.get("type", "string"), "text")


def endless(text: str) -> Iterator[str]:
    """Tokens of a text, and of filler after it, without end."""
    yield from tokens_of(text)
    yield from cycle(f" {word}" for word in FILLER.split())


def garbage() -> Iterator[str]:
    """Tokens that mean nothing, without end."""
    return cycle(f" {word}" for word in GARBAGE.split())
