"""Whether a JSON value fits a schema, within a bounded number of steps.

The schema comes from a client, so a full validator is out of the question: remote `$ref`, regular
expressions and nested alternatives would let it spend our CPU at will. What is not known here
counts as fitting; a miss only means that an answer is not escalated.
"""

from typing import Any

STEPS = 5_000
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


class _OutOfSteps(Exception):
    """The schema is too much for us."""


def fits(value: Any, schema: Any) -> bool:
    """Return whether the value fits; True as well where the check had to be given up."""
    try:
        return _Check(schema).fits(value, schema)
    except (_OutOfSteps, RecursionError):
        return True


class _Check:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = STEPS

    def fits(self, value: Any, schema: Any) -> bool:
        self._left -= 1
        if self._left < 0:
            raise _OutOfSteps
        if not isinstance(schema, dict):
            return schema is not False
        return (
            self._fits_reference(value, schema)
            and _fits_type(value, schema.get("type"))
            and ("const" not in schema or value == schema["const"])
            and (not isinstance(schema.get("enum"), list) or value in schema["enum"])
            and self._fits_alternatives(value, schema)
            and (not isinstance(value, dict) or self._fits_object(value, schema))
            and (not isinstance(value, list) or self._fits_array(value, schema))
        )

    def _fits_reference(self, value: Any, schema: dict[str, Any]) -> bool:
        path = schema.get("$ref")
        if not isinstance(path, str) or not path.startswith("#"):
            return True
        target = self._root
        for part in path.removeprefix("#").strip("/").split("/"):
            if part:
                target = target.get(part) if isinstance(target, dict) else None
        return target is None or self.fits(value, target)

    def _fits_alternatives(self, value: Any, schema: dict[str, Any]) -> bool:
        for word, judge in (("anyOf", any), ("oneOf", any), ("allOf", all)):
            options = schema.get(word)
            if isinstance(options, list) and not judge(self.fits(value, o) for o in options):
                return False
        return True

    def _fits_object(self, value: dict[str, Any], schema: dict[str, Any]) -> bool:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        if isinstance(required, list) and any(name not in value for name in required):
            return False
        closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        if closed and any(name not in properties for name in value):
            return False
        return all(
            self.fits(part, properties[name]) for name, part in value.items() if name in properties
        )

    def _fits_array(self, value: list[Any], schema: dict[str, Any]) -> bool:
        items = schema.get("items", True)
        return len(value) >= _number(schema.get("minItems"), 0) and all(
            self.fits(part, items) for part in value
        )


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


def _fits_type(value: Any, wanted: Any) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(names, list):
        return True
    return any(_is(value, name) for name in names)


def _is(value: Any, name: Any) -> bool:
    if isinstance(value, bool) and name in {"integer", "number"}:
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    types = _TYPES.get(name) if isinstance(name, str) else None
    return types is None or isinstance(value, types)
