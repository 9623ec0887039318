"""What a server says of its tools, made fit for a prompt: bounded, clean, and free of references.

Names, descriptions and schemas are written by whoever runs the server and read by the model, so
they are input like any other. Schemas are rebuilt keyword by keyword; `$ref` is put in place, so
that what is left is a tree of bounded size whose check costs no more than that.
"""

import json
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import jsonschema
from mcp_types import Tool as ServerTool

from agent_app.agent.neutral import neutral_text
from agent_app.tools.arguments import InvalidArguments

DESCRIPTION_CHARACTERS = 1_000
INNER_CHARACTERS = 300
SCHEMA_BYTES = 8_000
SCHEMA_NODES = 500
SCHEMA_DEPTH = 12
COMPLAINT_CHARACTERS = 300

_PLAIN = frozenset(
    {
        *("type", "enum", "const", "default", "format", "pattern", "required"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    }
)
_TEXTS = frozenset({"title", "description"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "additionalProperties", "not"})
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})

# A pattern can take for ever on the text the model chose; the server checks it, not we.
_Checker = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, {"pattern": None, "format": None}
)


class Unfit(Exception):
    """The tool cannot be offered; the text says why."""


@dataclass(frozen=True)
class Offer:
    """A tool as the model is told of it."""

    description: str
    parameters: dict[str, Any]
    repeatable: bool
    """The server says that it only reads, or does no more when called twice."""

    @cached_property
    def digest(self) -> str:
        """A name for all of it."""
        whole = json.dumps([self.description, self.parameters, self.repeatable], sort_keys=True)
        return sha256(whole.encode()).hexdigest()[:16]

    @cached_property
    def _checker(self) -> Any:
        return _Checker(self.parameters)

    def check(self, arguments: dict[str, Any]) -> None:
        """Hold arguments against the schema.

        Raises:
            InvalidArguments: They do not fit; the text says where.
        """
        error = next(self._checker.iter_errors(arguments), None)
        if error is not None:
            place = ".".join(str(part) for part in error.absolute_path)
            raise InvalidArguments(
                f"{place or 'arguments'}: {error.message}"[:COMPLAINT_CHARACTERS]
            )


def read_tool(tool: ServerTool) -> Offer:
    """Return what to offer of a server's tool.

    Raises:
        Unfit: Its schema is beyond the bounds, or not one.
    """
    parameters = _Rebuilt(tool.input_schema).whole()
    if len(json.dumps(parameters)) > SCHEMA_BYTES:
        raise Unfit(f"its schema is over {SCHEMA_BYTES} bytes")
    try:
        _Checker.check_schema(parameters)
    except jsonschema.SchemaError as error:
        raise Unfit(f"its schema is not valid: {error.message[:INNER_CHARACTERS]}") from error
    hints = tool.annotations
    return Offer(
        clean(tool.description or "", DESCRIPTION_CHARACTERS),
        parameters,
        bool(hints and (hints.read_only_hint or hints.idempotent_hint)),
    )


def clean(text: str, most: int) -> str:
    """Return text without characters that show nothing or turn it around, or pose as a prompt."""
    kept = (c for c in text[: 4 * most] if c in "\n\t" or unicodedata.category(c) not in _HIDDEN)
    return neutral_text("".join(kept)[:most].strip())


class _Rebuilt:
    """A schema built anew from what is known of JSON Schema, with its local references in place."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._nodes = 0

    def whole(self) -> dict[str, Any]:
        parameters = self._schema(self._root, 0)
        if not isinstance(parameters, dict) or parameters.get("type") != "object":
            raise Unfit("its schema is not that of an object")
        return {"properties": {}, **parameters}

    def _schema(self, schema: object, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > SCHEMA_NODES:
            raise Unfit(f"its schema has over {SCHEMA_NODES} parts")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise Unfit("its schema is not one")
        if depth > SCHEMA_DEPTH:  # a type that holds itself: beyond this the server checks
            return {}
        if "$ref" in schema:
            return self._schema(self._find(schema["$ref"]), depth + 1)
        built = {k: built for k, v in schema.items() if (built := self._keyword(k, v, depth)) != ()}
        if "patternProperties" in schema:
            built.pop("additionalProperties", None)
        return built

    def _keyword(self, name: str, value: Any, depth: int) -> Any:
        """Return the keyword's value rebuilt; () where the keyword is left out."""
        if name in _TEXTS:
            return clean(value, INNER_CHARACTERS) if isinstance(value, str) else ()
        if name in _PLAIN:
            return value if _is_clean(value) else ()
        if name in _SCHEMAS:
            return self._schema(value, depth + 1)
        if name in _LISTS and isinstance(value, list):
            return [self._schema(part, depth + 1) for part in value]
        if name == "properties" and isinstance(value, dict):
            return {_property(key): self._schema(part, depth + 1) for key, part in value.items()}
        return ()

    def _find(self, reference: object) -> object:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise Unfit("its schema refers to somewhere else")
        found: Any = self._root
        for part in reference[1:].split("/")[1:]:
            if not isinstance(found, dict):
                break
            found = found.get(part.replace("~1", "/").replace("~0", "~"))
        if not isinstance(found, dict | bool):
            raise Unfit(f"its schema refers to {clean(reference, 100)}, which is not there")
        return found


def _property(name: str) -> str:
    if not 1 <= len(name) <= 100 or clean(name, 100) != name:
        raise Unfit("a property's name is empty, too long, or holds characters that do not show")
    return name


def _is_clean(value: Any) -> bool:
    text = json.dumps(value, ensure_ascii=False)
    return len(text) <= SCHEMA_BYTES and clean(text, SCHEMA_BYTES) == text
