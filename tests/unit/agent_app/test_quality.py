import json
import time
from typing import Any

import pytest

from agent_app.agent.json_fit import fits
from agent_app.agent.quality import find_fault

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"tag": {"anyOf": [{"const": "x"}, {"type": "integer"}]}},
}


@pytest.mark.parametrize(
    ("value", "fit"),
    [
        ({"name": "Ann"}, True),
        ({"name": "Ann", "age": 3, "kind": "a", "tags": ["x", 1]}, True),
        ({"name": "Ann", "age": None}, True),
        ({"name": "Ann", "age": 3.0}, True),
        ({}, False),
        ({"name": 1}, False),
        ({"name": "Ann", "age": True}, False),
        ({"name": "Ann", "age": 3.5}, False),
        ({"name": "Ann", "kind": "c"}, False),
        ({"name": "Ann", "tags": []}, False),
        ({"name": "Ann", "tags": ["y"]}, False),
        ({"name": "Ann", "more": 1}, False),
        ([], False),
    ],
)
def test_values_are_held_against_the_schema(value: Any, fit: bool) -> None:
    assert fits(value, PERSON) is fit


def _exploding() -> dict[str, Any]:
    names = [f"n{n}" for n in range(40)]
    twice = {
        name: {"allOf": [{"$ref": f"#/$defs/{after}"}] * 2}
        for name, after in zip(names, [*names[1:], "end"], strict=True)
    }
    return {"$ref": "#/$defs/n0", "$defs": {**twice, "end": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema",
    [
        _exploding(),
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"type": "string", "pattern": "(a+)+$"},
        {"type": 7, "enum": 7, "properties": 7, "items": 7, "anyOf": 7, "required": 7},
        None,
    ],
)
def test_a_hostile_schema_costs_little_and_fits(schema: Any) -> None:
    started = time.perf_counter()
    assert fits("a" * 40 + "!", schema)
    assert time.perf_counter() - started < 0.5


def call(arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}


def fault(content: str = "", *calls: str, reason: str = "stop", **request: Any) -> str:
    answer = {"role": "assistant", "content": content}
    if calls:
        answer["tool_calls"] = [call(arguments) for arguments in calls]  # type: ignore[assignment]
    request = {"messages": [{"role": "user", "content": "Hi."}], **request}
    return find_fault(answer, reason, request, identical_calls=2)


def test_each_fault_has_its_name() -> None:
    assert fault("Fine.") == ""
    assert fault(" \n") == "empty"
    assert fault("", '{"a": 1}') == ""
    assert fault("", '{"a": ') == "arguments"
    assert fault("", "[1]") == "arguments"
    assert fault("Half", reason="length") == "length"
    assert fault("{}", response_format={"type": "json_object"}) == ""
    assert fault("{", response_format={"type": "json_object"}) == "schema"
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}
    assert fault('{"name": "Ann"}', response_format=wanted) == ""
    assert fault(json.dumps({"name": 1}), response_format=wanted) == "schema"


def test_calls_count_within_the_turn_only() -> None:
    made = {"role": "assistant", "content": "", "tool_calls": [call('{"a": 1, "b": 2}')]}
    user = {"role": "user", "content": "Hi."}
    assert fault("", '{"b": 2, "a": 1}', messages=[user, made]) == ""
    assert fault("", '{"b": 2, "a": 1}', messages=[user, made, made]) == "repeated_calls"
    assert fault("", '{"b": 2, "a": 1}', messages=[made, made, user]) == ""
    assert fault("", "{}", "{}", "{}") == "repeated_calls"
