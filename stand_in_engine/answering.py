"""From a request to the tokens of its answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from stand_in_engine import reply, script
from stand_in_engine.body import Asked, ChatAsked
from stand_in_engine.engine import Engine
from stand_in_engine.errors import ApiError
from stand_in_engine.script import Answer, Rule

NO_LIMIT = 4096  # tokens, where nothing else ends a text that has no end


@dataclass(frozen=True)
class Plan:
    """What will be said.

    Attributes:
        tokens: All of it.
        finish: Why it ends there.
        stop: The stop text that ended it.
        tool: The tool that is called; the tokens are its arguments.
    """

    tokens: list[str]
    finish: str
    stop: str | None = None
    tool: str | None = None


def plan_chat(asked: ChatAsked, rules: list[Rule], *, garbage: bool, room: int) -> Plan:
    """What to answer in a conversation; `room` is what the context leaves, in tokens."""
    offered = asked.offered
    if asked.forced in offered:
        answer = script.forced_call(asked.forced, offered[asked.forced])
    else:
        answer = script.choose(rules, asked.question, offered, asked.result_given)
    return plan(answer, asked, garbage=garbage, room=room, begun=asked.begun)


def plan(answer: Answer, asked: Asked, *, garbage: bool, room: int, begun: str = "") -> Plan:
    """Cut an answer where the request, or the context, ends it.

    Args:
        answer: All that there is to say.
        asked: The request.
        garbage: Say what means nothing instead.
        room: What the context leaves, in tokens.
        begun: The beginning of the answer, which is not said again.
    """
    before = len(script.tokens_of(begun))
    limit = before + min(asked.limit or NO_LIMIT, max(1, room))
    whole = _plan(answer, asked, garbage=garbage, limit=limit)
    if before and "".join(whole.tokens[:before]) == begun:
        return replace(whole, tokens=whole.tokens[before:] or [""])
    return whole


def _plan(answer: Answer, asked: Asked, *, garbage: bool, limit: int) -> Plan:
    if garbage:
        return Plan(list(islice(script.garbage(), min(limit, script.ECHO_TOKENS))), "stop")
    if answer.tool:
        tokens = script.tokens_of(json.dumps(answer.arguments))
        cut = len(tokens) > limit
        return Plan(tokens[:limit], "length" if cut else "stop", tool=answer.tool)
    echo = answer.text.startswith(script.ECHO)
    if asked.ignore_eos or (echo and asked.limit):
        tokens, finish = list(islice(script.endless(answer.text), limit)), "length"
    elif echo:
        tokens, finish = list(islice(script.endless(answer.text), script.ECHO_TOKENS)), "stop"
    else:
        tokens, finish = script.tokens_of(answer.text), "stop"
    if len(tokens) > limit:
        tokens, finish = tokens[:limit], "length"
    return _stopped(tokens, asked.stops, finish)


def _stopped(tokens: list[str], stops: list[str], finish: str) -> Plan:
    text = "".join(tokens)
    ends = {text.index(stop): stop for stop in stops if stop in text}
    if not ends:
        return Plan(tokens or [""], finish)
    end = min(ends)
    return Plan(script.tokens_of(text[:end]) or [""], "stop", ends[end])


async def streamed(
    engine: Engine, shape: reply.Chat | reply.Text, plan: Plan, prompt: int, asked: Asked
) -> AsyncIterator[str]:
    """The events of a stream; an error comes as an event, and `[DONE]` always."""
    made, opened = 0, False

    def event(chunk: dict[str, Any]) -> str:
        if asked.usage_in_chunks:
            chunk = {**chunk, "usage": reply.usage(prompt, made)}
        return reply.event(chunk)

    try:
        async for step in engine.run(plan.tokens, prompt, plan.finish):
            if not opened:
                opened = True
                for chunk in shape.opening():
                    yield event(chunk)
            made += bool(step.token)
            if step.finish is None:
                yield event(shape.token(step.token))
                continue
            stop = plan.stop if step.finish == "stop" else None
            fingerprint = not asked.include_usage
            for chunk in shape.ending(step.token, step.finish, stop, fingerprint=fingerprint):
                yield event(chunk)
        if asked.include_usage:
            yield reply.event(shape.usage(reply.usage(prompt, made)))
    except ApiError as error:
        yield reply.event(error.body)
    yield reply.DONE


async def collected(engine: Engine, plan: Plan, prompt: int) -> tuple[str, str, int]:
    """The whole text, why it ended, and its number of tokens.

    Raises:
        ApiError: 500: the engine went down.
    """
    steps: list[Any] = [step async for step in engine.run(plan.tokens, prompt, plan.finish)]
    text = "".join(step.token for step in steps)
    return text, steps[-1].finish, sum(bool(step.token) for step in steps)
