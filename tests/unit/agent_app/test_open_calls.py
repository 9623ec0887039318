from typing import Any

from agent_app.agent.conversation import INTERRUPTED_CALL, answer_open_calls

Message = dict[str, Any]


def user(text: str) -> Message:
    return {"id": text, "role": "user", "content": text}


def calls(*ids: str) -> Message:
    made = [{"id": id, "type": "function", "function": {"name": "f"}} for id in ids]
    return {"id": f"says {ids}", "role": "assistant", "content": "", "tool_calls": made}


def result(id: str, text: str = "fine") -> Message:
    return {"id": f"{id}.result", "role": "tool", "tool_call_id": id, "content": text}


def test_a_whole_conversation_is_left_as_it_is() -> None:
    whole = [user("a"), calls("1", "2"), result("1"), result("2"), user("b")]
    assert answer_open_calls(whole) is whole


def test_an_open_call_is_answered_right_behind_it_wherever_it_is() -> None:
    messages = [user("a"), calls("1"), user("b"), calls("2"), result("2"), user("c"), calls("3")]
    assert answer_open_calls(messages) == [
        user("a"), calls("1"), result("1", INTERRUPTED_CALL), user("b"), calls("2"), result("2"),
        user("c"), calls("3"), result("3", INTERRUPTED_CALL),
    ]  # fmt: skip


def test_of_several_calls_only_those_left_open_are_answered() -> None:
    messages = [user("a"), calls("1", "2", "3"), result("2"), user("b")]
    assert answer_open_calls(messages) == [
        user("a"), calls("1", "2", "3"), result("2"), result("1", INTERRUPTED_CALL),
        result("3", INTERRUPTED_CALL), user("b"),
    ]  # fmt: skip
