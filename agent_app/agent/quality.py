"""Faults of a finished answer that another model may be asked to do better."""

import json
from collections import Counter
from typing import Any

from agent_app.agent.conversation import Message
from agent_app.agent.json_fit import fits


def find_fault(
    answer: Message, finish_reason: str, request: dict[str, Any], *, identical_calls: int
) -> str:
    """Return the first fault of an answer, by the name it has in `escalate_on`, or "".

    Args:
        answer: What the model said and called.
        finish_reason: How it ended.
        request: What it was asked.
        identical_calls: How often a turn may make one call; the next one would end the turn.
    """
    calls = answer.get("tool_calls") or []
    if not calls and not answer["content"].strip():
        return "empty"
    if any(not _is_object(call["function"]["arguments"]) for call in calls):
        return "arguments"
    if calls and _most_repeated(request["messages"], calls) > identical_calls:
        return "repeated_calls"
    if not calls and not _fits_format(answer["content"], request.get("response_format")):
        return "schema"
    return "length" if finish_reason == "length" else ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except ValueError:
        return False


def _most_repeated(messages: list[Message], calls: list[dict[str, Any]]) -> int:
    """Return how often this turn would then have made one of the calls."""
    made: Counter[tuple[str, str]] = Counter()
    for message in messages:
        if message["role"] == "user":
            made.clear()
        made.update(_same(call) for call in message.get("tool_calls") or ())
    made.update(_same(call) for call in calls)
    return max(made[_same(call)] for call in calls)


def _same(call: dict[str, Any]) -> tuple[str, str]:
    function = call["function"]
    try:
        arguments = json.dumps(json.loads(function["arguments"] or "{}"), sort_keys=True)
    except ValueError:
        arguments = function["arguments"]
    return function["name"], arguments


def _fits_format(text: str, wanted: Any) -> bool:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in {"json_object", "json_schema"}:
        return True
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if kind == "json_object":
        return isinstance(value, dict)
    described = wanted.get("json_schema")
    return fits(value, described.get("schema") if isinstance(described, dict) else None)
