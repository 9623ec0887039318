"""SIGKILL at every interesting point of a turn; then the thread goes on as if nothing had been."""

import asyncio
from typing import Any

import pytest
from app_process import AppProcess, Heard
from scripted_engine import ABORT, Hold, ScriptedEngine, call_tool, chunk, say

QUESTION = "Which port?"
ANSWER = ["It is ", "8000."]

# Where the process dies: the script of the first life, and what the second life is asked for anew.
BEFORE_FIRST_TOKEN = "before the first token"
MID_STREAM = "in mid-stream, before the tool call"
CALL_STREAMED = "while the tool call is being streamed"
IN_TOOL = "in the tool, before its effect"
AFTER_TOOL = "after the tool, before the answer"
IN_ANSWER = "in mid-stream of the answer"
AT_LAST_TOKEN = "after the last token, before it is stored"
POINTS = [
    BEFORE_FIRST_TOKEN,
    MID_STREAM,
    CALL_STREAMED,
    IN_TOOL,
    AFTER_TOOL,
    IN_ANSWER,
    AT_LAST_TOKEN,
]


def first_life(point: str, hold: Hold) -> list[list[Any]]:
    call = call_tool("engine proxy port")
    words = [chunk({"content": word}) for word in ANSWER]
    return {
        BEFORE_FIRST_TOKEN: [[hold]],
        MID_STREAM: [[chunk({"content": "Let me "}), hold]],
        CALL_STREAMED: [[call[0], hold]],
        IN_TOOL: [call],
        AFTER_TOOL: [call, [hold]],
        IN_ANSWER: [call, [words[0], hold]],
        AT_LAST_TOKEN: [call, [*words, hold]],
    }[point]


def second_life(point: str) -> list[list[Any]]:
    model_is_asked_again = point in (BEFORE_FIRST_TOKEN, MID_STREAM, CALL_STREAMED)
    return (
        [call_tool("engine proxy port"), say(*ANSWER)] if model_is_asked_again else [say(*ANSWER)]
    )


async def die_at(app: AppProcess, engine: ScriptedEngine, point: str, sql) -> str:
    """Kill the app at a point of its first turn; return the thread."""
    hold = Hold()
    engine.queue = first_life(point, hold)
    blocked = sql.execute("BEGIN; LOCK TABLE app.tool_effects") if point == IN_TOOL else None
    async with app.streaming({"message": QUESTION}) as (heard, events):
        if point == IN_TOOL:
            while "tool" not in heard.names():
                await anext(events)
        else:
            async with asyncio.timeout(10):
                await hold.reached.wait()
        await app.kill()
    hold.release.set()
    if blocked:
        sql.execute("ROLLBACK")
    engine.queue = []
    return heard.thread_id


def assert_whole(heard: Heard, sql, engine: ScriptedEngine) -> None:
    assert heard.names()[-1] == "done", heard.events
    assert heard.of("done")[0]["content"] == "".join(ANSWER)
    last = engine.requests[-1]["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "tool"]
    assert last[0]["content"] == QUESTION
    assert sql.execute("SELECT count(*) FROM app.tool_effects").fetchone() == (1,)
    assert sql.execute("SELECT status, attempt FROM app.runs").fetchall() == [("done", 2)]


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_turn_is_resumed(
    app: AppProcess, engine: ScriptedEngine, sql, point: str
) -> None:
    thread = await die_at(app, engine, point, sql)
    engine.queue = second_life(point)
    await app.start()
    async with app.streaming({}, path=f"/chat/{thread}/resume") as (heard, events):
        async for _ in events:
            pass
    assert_whole(heard, sql, engine)


@pytest.mark.parametrize("point", [MID_STREAM, AFTER_TOOL])
async def test_the_same_message_after_a_crash_resumes_and_is_not_doubled(
    app: AppProcess, engine: ScriptedEngine, sql, point: str
) -> None:
    thread = await die_at(app, engine, point, sql)
    engine.queue = second_life(point)
    await app.start()
    heard = await app.chat(QUESTION, thread_id=thread)
    assert heard.of("done")[0]["resumed"]
    assert_whole(heard, sql, engine)


async def test_another_message_after_a_crash_leaves_no_open_tool_call(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    thread = await die_at(app, engine, IN_TOOL, sql)
    await app.start()
    heard = await app.chat("Never mind, hello.", thread_id=thread)
    assert heard.text() == "ok"
    messages = engine.requests[-1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]
    statuses = sql.execute("SELECT status FROM app.runs ORDER BY number").fetchall()
    assert statuses == [("abandoned",), ("done",)]


async def test_a_thread_of_a_dead_process_is_taken_over_when_its_lease_ran_out(
    prepared: AppProcess, engine: ScriptedEngine, sql
) -> None:
    await prepared.start()
    thread = await die_at(prepared, engine, AFTER_TOOL, sql)
    sql.execute("UPDATE app.runs SET owner = 'another-host:8200'")
    engine.queue = [say(*ANSWER)]
    await prepared.start()
    busy = await prepared.client.post(
        f"/chat/{thread}/resume", headers=prepared.headers(), json={"stream": False}
    )
    assert busy.status_code == 409
    assert busy.json()["error"]["retryable"]
    sql.execute("UPDATE app.runs SET lease_until = now()")
    heard = await prepared.chat(resume=True, thread_id=thread)
    assert_whole(heard, sql, engine)


async def test_a_finished_run_can_be_heard_again_but_not_run_again(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [say("Just ", "once.")]
    thread = (await app.chat("Say it.")).thread_id
    heard = await app.chat(resume=True, thread_id=thread)
    assert heard.text() == "Just once."
    assert heard.of("done")[0]["replayed"]
    assert len(engine.requests) == 1


async def test_the_engines_abort_after_a_resume_is_still_retried(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    thread = await die_at(app, engine, IN_ANSWER, sql)
    engine.queue = [[chunk({"content": "It"}), ABORT], say(*ANSWER)]
    await app.start()
    heard = await app.chat(resume=True, thread_id=thread)
    assert heard.names() == ["token", "retract", "token", "token", "usage", "done"]
    assert heard.text() == "It is 8000."
