"""What a client that comes back has missed, told from a checkpoint.

A checkpoint says of each step which events told it (`Turn.told`), so the last event that a client
heard says which steps it has whole. The others are told again: text after a retraction, tools
under the places they had. What the client has of a step that never got finished is withdrawn.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agent_app.agent.bounds import Turn
from agent_app.agent.conversation import Message, open_calls, step_id
from agent_app.agent.events import Event, Retract, Token, ToolEnd, ToolStart
from agent_app.agent.run import Numbered, Place
from agent_app.tools.toolbox import Result, Source

Recall = Callable[[str], Awaitable[Result | None]]
"""Returns the stored result of one of the run's tool calls by its id."""


@dataclass(frozen=True, slots=True)
class HeardEvent:
    """An event's id as clients give it back: `<run>.<attempt>.<number>`."""

    run_id: UUID
    place: Place


def read_event_id(text: str) -> HeardEvent:
    """Return what a `Last-Event-ID` says.

    Raises:
        ValueError: It is none of ours.
    """
    run_id, attempt, number = text.split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in (attempt, number)):
        raise ValueError(text)
    return HeardEvent(UUID(run_id), Place(int(attempt), int(number)))


async def retell(
    turn: Turn, messages: list[Message], heard: Place, recall: Recall, *, finished: bool
) -> list[Numbered]:
    """Return the events that bring a client from what it heard to what the checkpoint holds.

    Args:
        turn: The checkpoint's.
        messages: The checkpoint's.
        heard: The last event the client has.
        recall: Finds results of tools.
        finished: Nothing comes after the checkpoint; else the next step is told anew.
    """
    known = {message["id"]: message for message in messages}
    missing: list[Numbered] = []
    for step in range(turn["steps"]):
        message = known.get(step_id(turn["run_id"], step))
        if message is None:
            continue
        missing += _retell_text(message, _mark(turn, f"{step}"), heard)
        events = await _tool_events(message, known, recall)
        missing += _retell_tools(events, _mark(turn, f"{step}.tools"), heard)
    if not finished and heard > last_place(turn) and not open_calls(messages):
        missing.append(Numbered(None, Retract(step_id(turn["run_id"], turn["steps"]))))
    return missing


def last_place(turn: Turn) -> Place:
    """Return the place of the last event of the turn's finished steps."""
    return max(
        (Place(attempt, last) for attempt, _, last in turn.get("told", {}).values()),
        default=Place(0, 0),
    )


def end_places(turn: Turn, attempt: int, heard: Place) -> tuple[Place | None, int]:
    """Return the place of a finished run's usage, None if unknown, and the number before `done`.

    They follow its last step, where the attempt that finished it also ran that step.
    """
    last = last_place(turn)
    if last.attempt == attempt:
        return Place(attempt, last.number + 1), last.number + 1
    return None, heard.number if heard.attempt == attempt else 0


def _mark(turn: Turn, key: str) -> tuple[Place, Place] | None:
    """Return the places before the first event of a step and of its last; None if unknown."""
    mark = turn.get("told", {}).get(key)
    return (Place(mark[0], mark[1]), Place(mark[0], mark[2])) if mark else None


def _retell_text(
    message: Message, mark: tuple[Place, Place] | None, heard: Place
) -> list[Numbered]:
    if mark and (mark[1] <= heard or mark[0] == mark[1]):
        return []
    events: list[Event] = [Retract(message["id"])]
    if message["content"]:
        events.append(Token(message["content"], message["id"]))
    return [*(Numbered(None, event) for event in events[:-1]), Numbered(_end(mark), events[-1])]


def _retell_tools(
    events: list[Event], mark: tuple[Place, Place] | None, heard: Place
) -> list[Numbered]:
    if not events or (mark and mark[1] <= heard):
        return []
    if mark and mark[1].number - mark[0].number == len(events):
        places = [Place(mark[0].attempt, mark[0].number + n + 1) for n in range(len(events))]
        told = [Numbered(place, event) for place, event in zip(places, events, strict=True)]
        return [numbered for numbered in told if numbered.place and numbered.place > heard]
    return [*(Numbered(None, event) for event in events[:-1]), Numbered(_end(mark), events[-1])]


def _end(mark: tuple[Place, Place] | None) -> Place | None:
    return mark[1] if mark else None


async def _tool_events(message: Message, known: dict[str, Message], recall: Recall) -> list[Event]:
    """Return what told the calls of a message, those without a result left out."""
    events: list[Event] = []
    for call in message.get("tool_calls") or ():
        answer = known.get(f"{call['id']}.result")
        if answer is None:
            continue
        name: str = call["function"]["name"]
        events.append(ToolStart(call["id"], name, call["function"]["arguments"]))
        events.append(_tool_end(call["id"], name, answer, await recall(call["id"])))
    return events


def _tool_end(id: str, name: str, answer: dict[str, Any], stored: Result | None) -> ToolEnd:
    text: str = answer["content"]
    if stored is None:  # only what went well is stored
        sources = tuple(Source(**source) for source in answer.get("sources", ()))
        return ToolEnd(id, name, not text.startswith("error:"), text, sources)
    return ToolEnd(id, name, stored.ok, text, stored.sources)
