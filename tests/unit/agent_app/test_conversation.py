import pytest

from agent_app.agent.answer import Answer, call_id
from agent_app.agent.bounds import Used, begin_turn, check_step, count_calls
from agent_app.agent.conversation import make_prompt, merge
from agent_app.agent.engine import Chunk
from agent_app.agent.events import Usage
from agent_app.config import Limits
from agent_app.errors import BoundExceeded


def user(id: str, text: str) -> dict[str, object]:
    return {"id": id, "role": "user", "content": text}


def assistant(id: str, *calls: str) -> dict[str, object]:
    return {"id": id, "role": "assistant", "content": "", "tool_calls": [{"id": c} for c in calls]}


def test_a_message_that_comes_again_replaces_itself() -> None:
    merged = merge([user("1", "a"), user("2", "b")], [user("1", "c"), user("3", "d")])
    assert [(m["id"], m["content"]) for m in merged] == [("1", "c"), ("2", "b"), ("3", "d")]


def test_a_prompt_has_the_newest_turns_whole_and_no_ids() -> None:
    old = [user("1", "x" * 600), assistant("2", "c"), {"id": "3", "role": "tool", "content": ""}]
    new = [user("4", "now")]
    prompt = make_prompt([*old, *new], system="Be kind.", tokens=100)
    assert prompt == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "now"},
    ]
    assert len(make_prompt([*old, *new], system="", tokens=1000)) == 4


def test_the_newest_turn_stays_even_if_it_is_too_long() -> None:
    assert len(make_prompt([user("1", "x" * 600)], system="", tokens=10)) == 1


def test_an_answer_is_put_together_from_pieces() -> None:
    answer = Answer("run.0", [])
    answer.add(Chunk(text="Let me "))
    answer.add(Chunk(text="see."))
    for function in ({"name": "search", "arguments": '{"q'}, {"arguments": 'uery": 1}'}):
        answer.add(Chunk(tool_calls=({"index": 0, "id": "theirs", "function": function},)))
    answer.add(Chunk(tool_calls=({"index": 1, "function": {"name": "other"}},)))
    answer.add(Chunk(finish_reason="tool_calls", usage=Usage(7, 3)))
    assert answer.message["content"] == "Let me see."
    first, second = answer.message["tool_calls"]
    assert first["function"] == {"name": "search", "arguments": '{"query": 1}'}
    assert second["function"] == {"name": "other", "arguments": "{}"}
    assert (first["id"], second["id"]) == (call_id("run.0", 0), call_id("run.0", 1))
    assert first["id"] != second["id"]
    assert answer.usage.total == 10


def test_bounds() -> None:
    limits = Limits(
        steps=2, turn_tokens=10, session_tokens=20, turn_engine_seconds=3, identical_calls=1
    )
    turn = begin_turn("run")
    check_step(turn, limits, Used(9, 2.9, 19))
    with pytest.raises(BoundExceeded, match="2 steps"):
        check_step({**turn, "steps": 2}, limits, Used(0, 0, 0))
    for used in (Used(10, 0, 0), Used(0, 3, 0), Used(0, 0, 20)):
        with pytest.raises(BoundExceeded):
            check_step(turn, limits, used)
    counts = count_calls(turn, [("a", '{"x": 1, "y": 2}')], limits)
    with pytest.raises(BoundExceeded):
        count_calls({**turn, "calls": counts}, [("a", '{"y":2,"x":1}')], limits)
    with pytest.raises(BoundExceeded):
        count_calls(turn, [("a", str(n)) for n in range(9)], limits)
