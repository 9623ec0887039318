"""Messages of a thread: plain OpenAI dictionaries with an `id` of our own."""

import json
from typing import Any

Message = dict[str, Any]

CHARACTERS_PER_TOKEN = 3  # on the safe side: English runs at about four
INTERRUPTED_CALL = "error: the call was interrupted and has no result"


def merge(old: list[Message], new: list[Message]) -> list[Message]:
    """Append messages; one whose id is known already replaces it and is never doubled."""
    places = {message["id"]: place for place, message in enumerate(old)}
    merged = list(old)
    for message in new:
        if (place := places.get(message["id"])) is not None:
            merged[place] = message
        else:
            places[message["id"]] = len(merged)
            merged.append(message)
    return merged


def answer_open_calls(messages: list[Message]) -> list[Message]:
    """Return results for tool calls that an abandoned run left unanswered."""
    answered = {message.get("tool_call_id") for message in messages if message["role"] == "tool"}
    return [
        {
            "id": f"{call['id']}.result",
            "role": "tool",
            "tool_call_id": call["id"],
            "content": INTERRUPTED_CALL,
        }
        for message in messages
        for call in message.get("tool_calls") or ()
        if call["id"] not in answered
    ]


def estimate(value: object) -> int:
    """Return about how many tokens a value takes in a prompt; None takes none."""
    return 0 if value is None else len(json.dumps(value)) // CHARACTERS_PER_TOKEN


def make_prompt(messages: list[Message], *, system: str, tokens: int) -> list[Message]:
    """Return what the engine gets: system text and the newest turns that fit.

    The oldest turns are left out whole, so no tool result is ever without its call. The newest
    turn stays even if it is too long: the engine then says so itself.

    Args:
        messages: The thread.
        system: The system prompt, or "".
        tokens: Room for all of it, by estimate.
    """
    room = tokens - estimate(system)
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append({key: value for key, value in message.items() if key != "id"})
    kept: list[list[Message]] = []
    for turn in reversed(turns):
        room -= estimate(turn)
        if kept and room < 0:
            break
        kept.insert(0, turn)
    prompt = [message for turn in kept for message in turn]
    return [{"role": "system", "content": system}, *prompt] if system else prompt
