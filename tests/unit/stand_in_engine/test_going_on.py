"""The stand-in goes on with an answer that was begun, as vLLM does."""

import re

import pytest

from stand_in_engine import answering, script
from stand_in_engine.body import ChatAsked
from stand_in_engine.errors import ApiError

RULES = [script.Rule(re.compile("."), "One two three.")]
ASK = {"role": "user", "content": "Count."}


def asked(*messages: dict[str, str], **more: object) -> ChatAsked:
    begun = {"continue_final_message": True, "add_generation_prompt": False}
    return ChatAsked.model_validate({"messages": [ASK, *messages], **begun, **more})


@pytest.mark.parametrize(
    ("begun", "rest"),
    [
        ("One", " two three."),
        ("One two three", "."),
        ("One two three.", ""),
        ("Else", "One two three."),
    ],
)
def test_only_the_rest_is_said(begun: str, rest: str) -> None:
    body = asked({"role": "assistant", "content": begun})
    plan = answering.plan_chat(body, RULES, garbage=False, room=100)
    assert ("".join(plan.tokens), plan.finish) == (rest, "stop")


def test_its_bound_is_of_the_rest() -> None:
    body = asked({"role": "assistant", "content": "One"}, max_tokens=1)
    plan = answering.plan_chat(body, RULES, garbage=False, room=100)
    assert (plan.tokens, plan.finish) == ([" two"], "length")


def test_an_echo_goes_on_to_its_bound() -> None:
    body = asked({"role": "assistant", "content": "You said: Count"}, max_tokens=4)
    plan = answering.plan_chat(body, [], garbage=False, room=100)
    assert (len(plan.tokens), plan.tokens[0], plan.finish) == (4, ".", "length")


def test_an_answer_cannot_be_begun_and_to_begin() -> None:
    with pytest.raises(ApiError):
        asked(add_generation_prompt=True).check(1, 100)
