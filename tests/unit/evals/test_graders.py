from typing import Any

import pytest
from pydantic import TypeAdapter

from ops.evals.graders import Reply, grade
from ops.evals.suite import Grader

CALL = {"name": "get_weather", "arguments": '{"city": "Berlin", "unit": "C"}'}
SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}


def judged(grader: dict[str, Any], text: str = "", *calls: dict[str, str], says: str = "") -> str:
    parsed: Grader = TypeAdapter(Grader).validate_python(grader)
    return grade(parsed, "What?", Reply(text, calls), lambda _words: says)


@pytest.mark.parametrize(
    ("grader", "text"),
    [
        ({"exact": "42"}, " 42\n"),
        ({"contains": ["paris", "france"]}, "Paris is in France."),
        ({"regex": r"^\d+$"}, "42"),
        ({"json_schema": SCHEMA}, '{"total": 12.5}'),
        ({"json_schema": SCHEMA}, 'Here:\n```json\n{"total": 1}\n```'),
        ({"tool_call": None}, "no call"),
    ],
)
def test_a_right_answer_passes(grader: dict[str, Any], text: str) -> None:
    assert judged(grader, text) == ""


@pytest.mark.parametrize(
    ("grader", "text", "why"),
    [
        ({"exact": "42"}, "43", "not exactly '42': '43'"),
        ({"contains": ["paris", "rome"]}, "Paris", "lacks rome"),
        ({"regex": r"^\d+$"}, "many", "no ^"),
        ({"json_schema": SCHEMA}, "twelve", "no JSON"),
        ({"json_schema": SCHEMA}, '{"total": "12"}', "$.total: '12' is not of type 'number'"),
        ({"tool_call": {"name": "get_weather"}}, "Rain.", "no call"),
    ],
)
def test_a_wrong_answer_fails_and_says_why(grader: dict[str, Any], text: str, why: str) -> None:
    assert why in judged(grader, text)


def test_a_tool_call_is_held_against_name_and_the_arguments_that_matter() -> None:
    assert (
        judged({"tool_call": {"name": "get_weather", "arguments": {"city": "Berlin"}}}, "", CALL)
        == ""
    )
    wrong = judged({"tool_call": {"name": "get_weather", "arguments": {"city": "Rome"}}}, "", CALL)
    assert 'get_weather({"city": "Rome"})' in wrong
    assert "calls get_weather" in judged({"tool_call": None}, "", CALL)
    broken = {"name": "get_weather", "arguments": "{"}
    assert "does not call" in judged({"tool_call": {"name": "get_weather"}}, "", broken)


@pytest.mark.parametrize(("says", "passes"), [("YES", True), ("yes.", True), ("NO", False),
                                              ("I think so", False), ("", False)])  # fmt: skip
def test_a_judge_must_say_yes(says: str, passes: bool) -> None:
    assert (judged({"judge": "Is it polite?"}, "Hello", says=says) == "") is passes
