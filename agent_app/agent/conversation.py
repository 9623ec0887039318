"""Messages of a thread: plain OpenAI dictionaries with an `id` of our own."""

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

CHARACTERS_PER_TOKEN = 3  # on the safe side: English runs at about four
OURS = frozenset({"id", "sources"})  # of a message, and not for the engine
RESULT = ".result"  # ends the ids of such messages
INTERRUPTED_CALL = "error: the call was interrupted and has no result"


def step_id(run_id: str, step: int) -> str:
    """Return the id of the message that a run's step gives, the same on replay."""
    return f"{run_id}.{step}"


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


def open_calls(messages: list[Message]) -> list[tuple[str, dict[str, Any]]]:
    """Return tool calls without a result, each with the id of the message that made it."""
    answered = {message.get("tool_call_id") for message in messages if message["role"] == "tool"}
    return [
        (message["id"], call)
        for message in messages
        for call in message.get("tool_calls") or ()
        if call["id"] not in answered
    ]


def result_message(call_id: str, text: str, sources: Sequence[dict[str, Any]] = ()) -> Message:
    """Return the message that answers a call."""
    message = {"role": "tool", "tool_call_id": call_id, "content": text}
    return {"id": f"{call_id}{RESULT}", **message, **({"sources": [*sources]} if sources else {})}


def is_result(message: Message) -> bool:
    """Tell whether it answers a call of a tool of ours; a client's messages have other ids."""
    return str(message["id"]).endswith(RESULT)


def answer_open_calls(messages: list[Message]) -> list[Message]:
    """Return the messages with a result for every tool call, each right behind its call.

    Engines refuse a conversation in which one is missing or out of place.
    """
    left = open_calls(messages)
    if not left:
        return messages
    missing = {call["id"] for _, call in left}
    closed: list[Message] = []
    for place, message in enumerate(messages):
        closed.append(message)
        follows = messages[place + 1]["role"] if place + 1 < len(messages) else ""
        if follows != "tool" and missing:
            for call in _calls_before(messages, place):
                if call["id"] in missing:
                    closed.append(result_message(call["id"], INTERRUPTED_CALL))
                    missing.discard(call["id"])
    return closed


def _calls_before(messages: list[Message], place: int) -> list[dict[str, Any]]:
    """Return the calls of the assistant's message that this place ends the results of."""
    while place >= 0 and messages[place]["role"] == "tool":
        place -= 1
    return list(messages[place].get("tool_calls") or ()) if place >= 0 else []


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
        turns[-1].append({key: value for key, value in message.items() if key not in OURS})
    kept: list[list[Message]] = []
    for turn in reversed(turns):
        room -= estimate(turn)
        if kept and room < 0:
            break
        kept.insert(0, turn)
    prompt = [message for turn in kept for message in turn]
    return [{"role": "system", "content": system}, *prompt] if system else prompt
