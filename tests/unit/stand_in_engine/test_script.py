"""What the stand-in answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.lab import demo_model
from stand_in_engine import answering, script
from stand_in_engine.body import ChatAsked

OFFERED = {"look_up": {}}


@pytest.fixture
def rules(tmp_path: Path) -> list[script.Rule]:
    file = tmp_path / "script.yml"
    file.write_text(
        "answers:\n"
        "- {match: '^weather', tool: look_up, arguments: {city: Berlin}, text: It rains.}\n"
        "- {match: hello, text: Good day.}\n"
    )
    return script.read_script(file)


def test_tokens_joined_are_the_text() -> None:
    text = "Hello, world!  Two\nlines. "
    assert "".join(script.tokens_of(text)) == text


def test_the_first_rule_that_matches_answers(rules: list[script.Rule]) -> None:
    assert script.choose(rules, "Say HELLO", {}, result_given=False).text == "Good day."


def test_a_tool_is_called_only_if_it_is_offered_and_has_not_answered(
    rules: list[script.Rule],
) -> None:
    asked = [({}, False), (OFFERED, False), (OFFERED, True)]
    answers = [script.choose(rules, "weather", tools, given) for tools, given in asked]
    assert [(a.tool, a.text) for a in answers] == [
        (None, "It rains."),
        ("look_up", ""),
        (None, "It rains."),
    ]


def test_the_demo_models_dialogues_are_known() -> None:
    rules = script.read_dialogues(demo_model.DIALOGUES)
    offered = {"search_knowledge": {}}
    called = script.choose(rules, "what is rackhand", offered, result_given=False)
    assert (called.tool, called.arguments) == ("search_knowledge", {"query": "what rackhand is"})


@pytest.mark.parametrize(("limit", "made", "finish"), [(5, 5, "length"), (None, 64, "stop")])
def test_an_echo_is_as_long_as_it_may(limit: int | None, made: int, finish: str) -> None:
    asked = ChatAsked.model_validate({"messages": [], "max_tokens": limit})
    answer = script.choose([], "Tell me more", {}, result_given=False)
    plan = answering.plan(answer, asked, garbage=False, room=1000)
    assert (len(plan.tokens), plan.finish) == (made, finish)
    assert "".join(plan.tokens).startswith("You said: Tell me")


def test_the_context_ends_an_answer() -> None:
    asked = ChatAsked.model_validate({"messages": [], "ignore_eos": True})
    plan = answering.plan(script.Answer("a b c"), asked, garbage=False, room=10)
    assert (len(plan.tokens), plan.finish) == (10, "length")


def test_a_forced_call_fits_its_schema() -> None:
    parameters = {
        "properties": {"unit": {"enum": ["c", "f"]}, "days": {"type": "integer"}, "x": {}},
        "required": ["unit", "days"],
    }
    answer = script.forced_call("weather", {"parameters": parameters})
    assert answer.arguments == {"unit": "c", "days": 1}
