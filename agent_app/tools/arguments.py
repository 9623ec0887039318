"""Arguments of a call as the model wrote them: read within bounds, written so one sees all.

The model's text may hold what JSON allows and nobody expects: the same key twice, a nest a thousand
deep, characters that turn text around. What is executed, hashed, approved and stored is always the
one canonical text made here.
"""

import json
import unicodedata
from typing import Any

ARGUMENT_BYTES = 64_000
DEPTH = 32


class InvalidArguments(Exception):
    """The model called a tool wrongly; the text tells it how."""


def read_arguments(text: str) -> dict[str, Any]:
    """Return a call's arguments.

    Raises:
        InvalidArguments: Not one JSON object, or beyond the bounds of size, depth or characters.
    """
    if len(text) > ARGUMENT_BYTES or len(text.encode(errors="replace")) > ARGUMENT_BYTES:
        raise InvalidArguments(f"arguments may have {ARGUMENT_BYTES} bytes at most")
    try:
        value = json.loads(text or "{}", parse_constant=_refuse)
    except RecursionError as error:
        raise InvalidArguments(f"arguments may nest {DEPTH} deep at most") from error
    except ValueError as error:
        raise InvalidArguments(str(error)) from error
    if not isinstance(value, dict):
        raise InvalidArguments("arguments must be one JSON object")
    _check(value)
    return value


def write_arguments(arguments: dict[str, Any]) -> str:
    """Return the canonical text: what a person reads is what runs.

    Characters that show nothing or turn text around are written as escapes.
    """
    text = json.dumps(arguments, ensure_ascii=False)
    return "".join(_visible(character) for character in text) if not text.isascii() else text


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check(root: dict[str, Any]) -> None:
    """Walk without recursion: the model decides how deep they nest."""
    waiting: list[tuple[object, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH:
            raise InvalidArguments(f"arguments may nest {DEPTH} deep at most")
        if isinstance(value, dict):
            waiting.extend((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list):
            waiting.extend((part, depth + 1) for part in value)
        elif isinstance(value, str):
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise InvalidArguments("texts may hold no NUL and no lone surrogates")
        elif isinstance(value, float) and value in (float("inf"), float("-inf")):
            raise InvalidArguments("a number is too large")


def _visible(character: str) -> str:
    if character.isascii() or unicodedata.category(character) not in ("Cf", "Cc", "Zl", "Zp"):
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))
