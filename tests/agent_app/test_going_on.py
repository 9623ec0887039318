"""A stream of /v1 outlives its engine: another goes on from what the client has."""

import asyncio
from typing import Any

import pytest
from app_process import AppProcess
from scripted_engine import (
    ABORT,
    CUT,
    ERROR_EVENT,
    ScriptedEngine,
    Status,
    call_tool,
    chunk,
    counted,
    say,
)
from test_openai import HELLO, THEIR_TOOL, stream

GONE = "engine_unavailable"


def text_of(events: list[Any]) -> str:
    deltas = [e["choices"][0]["delta"] for e in events if e != "[DONE]" and e.get("choices")]
    return "".join(delta.get("content") or "" for delta in deltas)


def ends_of(events: list[Any]) -> list[str]:
    choices = [e["choices"][0] for e in events if e != "[DONE]" and e.get("choices")]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


@pytest.mark.parametrize("fault", [ABORT, ERROR_EVENT, CUT, "garbage"])
async def test_the_next_engine_goes_on_where_the_last_one_ended(
    app: AppProcess, engine: ScriptedEngine, fault: object
) -> None:
    engine.queue = [
        [counted({"content": "half "}, prompt=20, made=1), counted({"content": "an"}, prompt=20,
         made=2), fault],
        [counted({"content": " answer"}, prompt=24, made=1), counted(reason="stop", prompt=24,
         made=2)],
    ]  # fmt: skip
    events = await stream(app, max_tokens=10, stream_options={"include_usage": True})
    assert text_of(events) == "half an answer"
    assert (ends_of(events), events[-1]) == (["stop"], "[DONE]")
    usage = events[-2]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 4)
    first, second = engine.requests
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": "half an"}]
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
    assert (first["max_tokens"], second["max_tokens"]) == (10, 8)
    assert "continue_final_message" not in first
    assert 'agent_app_answers_continued_total{model="demo"} 1.0' in await app.metrics()


async def test_it_goes_on_through_several_engines_and_counts_all_of_it(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [
        [chunk({"content": "one\n\n"}), CUT],
        [Status(503)],
        [chunk({"content": "\n"}), chunk({"content": "\n  two"}), ABORT],
        [chunk({"content": " three"}), chunk(reason="stop")],
    ]
    events = await stream(app)
    assert text_of(events) == "one\n\n  two three"
    sent = [request["messages"][-1]["content"] for request in engine.requests]
    assert sent == ["Hello.", "one", "one", "one\n\n  two"]


async def test_an_answer_that_was_complete_but_for_its_end_just_ends(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    said = [chunk({"content": "a"}), chunk({"content": "b"})]
    for steps, reason in ([*said, CUT], "length"), ([*said, chunk(reason="stop"), CUT], "stop"):
        engine.requests.clear()
        engine.queue = [steps]
        events = await stream(app, max_tokens=2 if reason == "length" else 9)
        assert (text_of(events), ends_of(events), len(engine.requests)) == ("ab", [reason], 1)
        assert events[-1] == "[DONE]"
        await asyncio.sleep(1.1)  # the engine's ejection


async def test_a_call_of_our_own_tools_that_was_cut_is_made_anew_unseen(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    half = {"tool_calls": [{"index": 0, "function": {"name": "search_know", "arguments": "{"}}]}
    engine.queue = [
        [chunk(half), CUT],
        [chunk({"content": "I look. "}), chunk(half), CUT],
        call_tool("slots"),
        say("Two."),
    ]
    events = await stream(app)
    assert (text_of(events), ends_of(events)) == ("I look. Two.", ["stop"])
    assert engine.requests[2]["messages"][-1]["content"] == "I look."
    called, result = engine.requests[3]["messages"][-2:]
    assert (called["content"], called["tool_calls"][0]["function"]["name"]) == (
        "I look. ",
        "search_knowledge",
    )
    assert result["role"] == "tool"


NOT_GONE_ON = {
    "a call that the client saw": (
        [chunk({"tool_calls": [{"index": 0, "function": {"name": "weather", "arguments": "{"}}]})],
        {"tools": [THEIR_TOOL]},
    ),
    "thoughts before it": ([chunk({"reasoning": "Hm."}), chunk({"content": "half"})], {}),
    "a grammar": ([chunk({"content": "{"})], {"response_format": {"type": "json_object"}}),
}


@pytest.mark.parametrize("case", NOT_GONE_ON)
async def test_what_no_engine_can_go_on_with_is_an_error(
    app: AppProcess, engine: ScriptedEngine, case: str
) -> None:
    steps, more = NOT_GONE_ON[case]
    engine.queue = [[*steps, ABORT]]
    events = await stream(app, **more)
    assert events[-1]["error"]["code"] == GONE
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [[Status(400)], [chunk({"reasoning": "Anew."}), *say("whole")]],
    ids=["refuses", "thinks anew"],
)
async def test_an_engine_that_does_not_go_on_is_an_error_that_may_be_retried(
    app: AppProcess, engine: ScriptedEngine, answer: list[Any]
) -> None:
    engine.queue = [[chunk({"content": "half"}), ABORT], answer]
    events = await stream(app)
    assert (text_of(events[:-1]), events[-1]["error"]["code"]) == ("half", GONE)


async def test_engines_that_cannot_are_not_asked_to(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["models"]["demo"]["continues"] = False
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    engine.queue = [[chunk({"content": "half"}), ABORT]]
    events = await stream(app)
    assert (events[-1]["error"]["code"], len(engine.requests)) == (GONE, 1)
    await asyncio.sleep(1.1)  # the engine's ejection
    engine.queue = [[chunk({"content": " \n"}), ABORT], say(" \n", "whole")]
    events = await stream(app)  # nothing was said yet, so it may begin anew
    assert text_of(events) == " \nwhole"
    assert engine.requests[-1]["messages"][-1]["content"] == HELLO[0]["content"]
    assert await app.end() == 0
    await app.client.aclose()
