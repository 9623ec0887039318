import asyncio
import itertools
import time

import pytest
from app_process import AppProcess
from scripted_engine import Hold, ScriptedEngine, call_tool, chunk, say


async def test_an_agent_that_repeats_itself_is_stopped(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.default = lambda _body: call_tool("the same")
    heard = await app.chat("Loop.")
    assert heard.names()[-1] == "error"
    assert heard.of("error")[0]["code"] == "limit_exceeded"
    assert "same arguments" in heard.of("error")[0]["message"]
    assert len(engine.requests) == 3
    assert sql.execute("SELECT status FROM app.runs").fetchall() == [("failed",)]
    engine.default = lambda _body: say("free again")
    assert (await app.chat("Hello.", thread_id=heard.thread_id)).text() == "free again"


async def test_an_agent_that_never_ends_is_stopped_by_its_steps(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    numbers = itertools.count()
    engine.default = lambda _body: call_tool(f"query {next(numbers)}")
    heard = await app.chat("Loop.")
    assert "8 steps" in heard.of("error")[0]["message"]
    assert len(engine.requests) == 8


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("turn_tokens", 20, "20 tokens"),
        ("session_tokens", 20, "session"),
        ("turn_seconds", 0.5, "time"),
    ],
)
async def test_tokens_and_time_are_bounded(
    prepared: AppProcess,
    configuration,
    engine: ScriptedEngine,
    limit: str,
    value: float,
    words: str,
) -> None:
    configuration["limits"] = {limit: value}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    numbers = itertools.count()
    engine.default = (
        (lambda _body: [chunk({"content": "x"}), Hold()])
        if limit == "turn_seconds"
        else (lambda _body: call_tool(f"query {next(numbers)}"))
    )
    heard = await app.chat("Loop.")
    assert words in heard.of("error")[0]["message"]
    await engine.idle(seconds=2)
    await app.end()
    await app.client.aclose()


async def test_sigterm_lets_a_stream_finish(app: AppProcess, engine: ScriptedEngine) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "first "}), hold, *say("last")]]
    async with app.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
        ending = asyncio.create_task(app.end())
        await asyncio.sleep(0.5)
        hold.release.set()
        async for _ in events:
            pass
    assert heard.text() == "first last"
    assert heard.names()[-1] == "done"
    assert await ending == 0


async def test_sigterm_says_goodbye_to_a_stream_that_takes_too_long_and_it_can_be_resumed(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    hold = Hold()
    engine.queue = [call_tool("slots"), [chunk({"content": "Tw"}), hold], say("Two.")]
    began = time.monotonic()
    async with app.streaming({"message": "Slots?"}) as (heard, events):
        while "token" not in heard.names():
            await anext(events)
        ending = asyncio.create_task(app.end())
        async for _ in events:
            pass
    assert heard.names()[-1] == "error"
    assert (heard.of("error")[0]["code"], heard.of("error")[0]["retryable"]) == ("draining", True)
    assert await ending == 0
    assert time.monotonic() - began < 10
    assert sql.execute("SELECT status FROM app.runs").fetchall() == [("interrupted",)]
    await app.start()
    again = await app.chat(resume=True, thread_id=heard.thread_id)
    assert again.text() == "Two."
    assert sql.execute("SELECT count(*) FROM app.tool_effects").fetchone() == (1,)
