"""What the engine did is counted and bounded, whoever left or died meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from app_process import AppProcess
from scripted_engine import Hold, Pause, ScriptedEngine, Status, call_tool, chunk, counted, say

USAGE = "SELECT requests, prompt_tokens, completion_tokens FROM app.usage"


async def usage_is(sql, *rows: tuple[int, int, int], seconds: float = 5) -> None:
    """Wait until the table says so: a run whose client left is written down after its grace."""
    found: list[Any] = []
    try:
        async with asyncio.timeout(seconds):
            while found != list(rows):
                found = sql.execute(USAGE).fetchall()
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"usage is {found}, not {rows}")


def counting(words: int, hold: Hold | None = None) -> list[Any]:
    """An answer whose every chunk carries the usage so far: 30 for the prompt, 2 a word."""
    steps: list[Any] = [
        counted({"content": f"w{n} "}, prompt=30, made=2 * n) for n in range(1, words + 1)
    ]
    return [*steps, hold] if hold else [*steps, counted(reason="stop", prompt=30, made=2 * words)]


async def leave_after(app: AppProcess, events: int, **body: Any) -> str:
    async with app.streaming(body) as (heard, stream):
        for _ in range(events):
            await anext(stream)
    return heard.thread_id


@pytest.fixture
async def limited(prepared: AppProcess, configuration) -> AsyncIterator[Any]:
    """Start the app with limits of the test's own."""
    started: list[AppProcess] = []

    async def start(**limits: Any) -> AppProcess:
        configuration["limits"] |= {"reconnect_seconds": 0, **limits}
        app = AppProcess(prepared.folder, configuration)
        app.key = prepared.key
        await app.start()
        started.append(app)
        return app

    yield start
    for app in started:
        await app.kill()
        await app.client.aclose()


async def test_a_client_that_leaves_in_mid_answer_spends_what_the_engine_did(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [counting(3, Hold())]
    await leave_after(app, 3, message="Hi.")
    await usage_is(sql, (1, 30, 6))
    assert sql.execute("SELECT tokens FROM app.threads").fetchone() == (36,)


async def test_without_usage_in_the_chunks_what_was_cut_short_is_estimated(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a "}), chunk({"content": "b "}), hold]]
    await leave_after(app, 2, message="x" * 300)
    await usage_is(sql, (1, 111, 2))  # a third of the prompt's characters, and the chunks


async def test_an_answer_cut_short_before_its_first_token_spends_its_prompt(
    limited, engine: ScriptedEngine, sql
) -> None:
    app = await limited()
    hold = Hold()
    engine.queue = [[hold]]
    request = asyncio.create_task(
        app.client.post("/chat", json={"message": "x" * 300}, headers=app.headers())
    )
    await hold.reached.wait()
    await asyncio.sleep(0.2)  # until the app has the head of the engine's answer
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await usage_is(sql, (1, 111, 0))


async def test_limits_get_back_only_what_a_client_that_left_did_not_use(
    limited, engine: ScriptedEngine
) -> None:
    app = await limited()
    key = app.run("keys", "create", "--name", "k", "--limit", "tokens_per_minute=6000")
    app.key = key
    engine.queue = [counting(3, Hold())]
    thread = await leave_after(app, 3, message="Hi.")
    await engine.idle(2)
    await asyncio.sleep(0.3)
    async with app.client.stream(
        "POST", "/chat", json={"message": "Again.", "thread_id": thread}, headers=app.headers()
    ) as response:
        left = int(response.headers["x-ratelimit-remaining-tokens"])
    # 36 were used, and this run has reserved its own 1026; some drain meanwhile.
    assert 6000 - 1026 - 36 <= left <= 6000 - 1026


async def test_budgets_cannot_be_dodged_by_leaving(limited, engine: ScriptedEngine, sql) -> None:
    app = await limited()
    app.key = app.run("keys", "create", "--name", "k", "--limit", "budget_hard=100")
    for n in range(1, 4):
        engine.queue = [counting(3, Hold())]
        await leave_after(app, 3, message="Hi.")
        await usage_is(sql, (n, 30 * n, 6 * n))
    response = await app.client.post("/chat", json={"message": "Hi."}, headers=app.headers())
    assert response.status_code == 429
    assert response.json()["error"]["code"] == "insufficient_quota"


async def kill_after_a_tool(app: AppProcess, engine: ScriptedEngine) -> str:
    """Kill the app in its second step, the first being in the checkpoint; return the thread."""
    hold = Hold()
    engine.queue = [call_tool("slots"), [chunk({"content": "T"}), hold]]
    async with app.streaming({"message": "Slots?"}) as (heard, events):
        while "token" not in heard.names():
            await anext(events)
        await app.kill()
    hold.release.set()
    return heard.thread_id


async def test_finished_steps_of_a_killed_attempt_are_counted_when_it_is_resumed(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    thread = await kill_after_a_tool(app, engine)
    sql.execute("UPDATE app.runs SET owner = 'elsewhere', lease_until = now()")
    await app.start()
    heard = await app.chat(resume=True, thread_id=thread)
    assert heard.of("usage")[0]["total_tokens"] == 30  # of the whole run
    await usage_is(sql, (1, 20, 10))
    assert sql.execute("SELECT tokens FROM app.threads").fetchone() == (30,)
    await app.chat(resume=True, thread_id=thread)
    await usage_is(sql, (1, 20, 10))


async def test_finished_steps_of_a_killed_attempt_are_counted_when_it_is_abandoned(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    thread = await kill_after_a_tool(app, engine)
    sql.execute("UPDATE app.runs SET owner = 'elsewhere', lease_until = now()")
    await app.start()
    await app.chat("Never mind.", thread_id=thread)
    await usage_is(sql, (2, 20, 10))
    found = sql.execute("SELECT prompt_tokens, completion_tokens FROM app.runs ORDER BY number")
    assert found.fetchall() == [(10, 5), (10, 5)]


async def test_finished_steps_of_a_killed_attempt_are_counted_by_its_next_life_unasked(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    thread = await kill_after_a_tool(app, engine)
    assert sql.execute(USAGE).fetchall() == []
    await app.start()
    await usage_is(sql, (1, 10, 5))
    await app.kill()
    await app.start()
    engine.queue = [say("Two.")]
    await app.chat(resume=True, thread_id=thread)
    await usage_is(sql, (1, 20, 10))


async def test_a_turn_cannot_dodge_its_tokens_by_being_left_again_and_again(
    limited, engine: ScriptedEngine
) -> None:
    app = await limited(turn_tokens=100)
    engine.default = lambda _body: counting(3, Hold())
    thread = await leave_after(app, 3, message="Go.")
    for _ in range(2):
        await leave_after(app, 3, resume=True, thread_id=thread)
    heard = await app.chat(resume=True, thread_id=thread)
    assert "100 tokens" in heard.of("error")[0]["message"]
    assert len(engine.requests) == 3


async def test_the_engines_time_of_a_turn_is_bounded(limited, engine: ScriptedEngine, sql) -> None:
    app = await limited(turn_engine_seconds=1)
    engine.queue = [[chunk({"content": "a"}), Hold()]]
    began = time.monotonic()
    heard = await app.chat("Go.")
    assert 0.9 < time.monotonic() - began < 2
    assert heard.of("error")[0]["code"] == "limit_exceeded"
    assert "1 s of engines" in heard.of("error")[0]["message"]
    await engine.idle(1)
    assert sql.execute("SELECT status FROM app.runs").fetchall() == [("failed",)]


async def test_the_engines_time_goes_on_counting_after_a_resume(
    limited, engine: ScriptedEngine, sql
) -> None:
    app = await limited(turn_engine_seconds=1.5)
    engine.default = lambda _body: [chunk({"content": "a"}), Pause(0.8), Hold()]
    async with app.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
        await asyncio.sleep(0.9)
    await engine.idle(2)
    began = time.monotonic()
    again = await app.chat(resume=True, thread_id=heard.thread_id)
    assert 0.2 < time.monotonic() - began < 1.2
    assert again.of("error")[0]["code"] == "limit_exceeded"
    (seconds,) = sql.execute("SELECT engine_seconds FROM app.usage").fetchone()
    assert 1.4 < seconds < 2.2


async def test_waiting_for_an_engine_is_not_the_engines_time(
    limited, engine: ScriptedEngine, sql
) -> None:
    app = await limited(turn_engine_seconds=0.5)
    engine.queue = [[Status(503)], [Status(503)], [Status(503)], say("at last")]
    began = time.monotonic()
    assert (await app.chat("Go.")).text() == "at last"
    assert time.monotonic() - began > 0.5
    (seconds,) = sql.execute("SELECT engine_seconds FROM app.usage").fetchone()
    assert seconds < 0.4


async def test_the_steps_of_a_turn_count_their_tokens_and_seconds_in_the_checkpoint(
    limited, engine: ScriptedEngine, sql
) -> None:
    app = await limited(turn_tokens=40)
    numbers = iter(range(100))
    engine.default = lambda _body: call_tool(f"query {next(numbers)}")
    async with app.streaming({"message": "Go."}) as (heard, events):
        while heard.names().count("tool") < 2:
            await anext(events)
        await app.kill()
    await app.start()
    again = await app.chat(resume=True, thread_id=heard.thread_id)
    assert "40 tokens" in again.of("error")[0]["message"]
    assert len(engine.requests) <= 4  # three of 15, and one the kill may have cut
