"""PostgreSQL and Redis go away and come back, at rest and in the middle of answers."""

import asyncio
import contextlib
import os
import signal
import time
from typing import Any

import psycopg
import pytest
from app_process import AppProcess, Heard
from data_servers import Postgres, RedisServer
from lossy_redis import close_its_clients
from scripted_engine import Hold, ScriptedEngine, chunk, say
from vitals import figure, held, recovers, settles


def forget(connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
    with contextlib.suppress(psycopg.Error):
        connection.close()


@pytest.fixture
def postgres_back(postgres: Postgres) -> Any:
    """Whatever happens, the next test finds it up."""
    yield postgres
    with contextlib.suppress(psycopg.OperationalError):
        postgres.admin("postgres").close()
        return
    postgres.start()


async def hear_to_its_end(app: AppProcess, message: str, ready: Hold, act: Any) -> Heard:
    """Begin a turn, act when the engine has said its first word, and hear the rest."""
    async with app.streaming({"message": message}) as (heard, events):
        while "token" not in heard.names():
            await anext(events)
        await act()
        ready.release.set()
        async for _ in events:
            pass
    return heard


async def finish(app: AppProcess, heard: Heard, message: str) -> None:
    """Go on, as the error says one may, until the turn is done."""
    if heard.names()[-1] == "done":
        return
    error = heard.of("error")[0]
    assert error["retryable"], error
    for _ in range(40):
        await asyncio.sleep(0.25)
        body = {"message": message, "thread_id": heard.thread_id}
        response = await app.client.post(
            "/chat", json={**body, "stream": False}, headers=app.headers()
        )
        if response.status_code in {409, 503}:
            assert response.headers["retry-after"]
            continue
        assert response.status_code == 200, response.text
        return
    raise AssertionError(app.log()[-3000:])


async def conversation(app: AppProcess, thread: str) -> list[tuple[str, str]]:
    answer = await app.client.get(f"/threads/{thread}", headers=app.headers())
    assert answer.status_code == 200, answer.text
    return [(m["role"], m["content"]) for m in answer.json()["messages"]]


async def test_postgres_restarted_in_mid_stream_costs_at_most_a_retry(
    app: AppProcess, engine: ScriptedEngine, postgres_back: Postgres
) -> None:
    before, hold = await held(app), Hold()
    engine.queue = [[chunk({"content": "Half, "}), hold, *say("whole.")]]
    engine.default = lambda _body: say("Half, whole.")

    async def restart() -> None:
        await asyncio.to_thread(postgres_back.stop)
        await asyncio.to_thread(postgres_back.start)

    heard = await hear_to_its_end(app, "Go on.", hold, restart)
    await finish(app, heard, "Go on.")
    told = await conversation(app, heard.thread_id)
    assert told == [("user", "Go on."), ("assistant", "Half, whole.")]
    await settles(app, before)


async def test_the_backend_that_saves_a_turn_is_ended_and_another_saves_it(
    app: AppProcess, engine: ScriptedEngine, postgres_back: Postgres, sql: Any
) -> None:
    before, hold = await held(app), Hold()
    engine.queue = [[chunk({"content": "Half, "}), hold, *say("whole.")]]

    async def end_its_backend() -> None:
        for _ in range(200):
            ended = sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'agent_app' AND wait_event_type = 'Lock'"
            ).fetchall()
            if ended:
                break
            await asyncio.sleep(0.02)
        assert ended == [(True,)]
        await asyncio.to_thread(locker.rollback)

    with psycopg.connect(sql.info.dsn) as locker:
        locker.execute("LOCK TABLE checkpoints.checkpoints IN EXCLUSIVE MODE")
        heard = await hear_to_its_end(app, "Go on.", hold, end_its_backend)
    assert heard.names()[-1] == "done", heard.of("error")
    told = await conversation(app, heard.thread_id)
    assert told == [("user", "Go on."), ("assistant", "Half, whole.")]
    await settles(app, before)


async def test_postgres_away_at_the_end_of_an_answer_costs_a_retry_and_nothing_else(
    app: AppProcess, engine: ScriptedEngine, postgres_back: Postgres
) -> None:
    before, hold = await held(app), Hold()
    engine.queue = [[chunk({"content": "First "}), hold, *say("try.")]]
    engine.default = lambda _body: say("Second try.")

    async def stop() -> None:
        await asyncio.to_thread(postgres_back.stop)

    heard = await hear_to_its_end(app, "Go on.", hold, stop)
    assert heard.of("error")[0]["code"] == "database_unavailable"
    assert heard.of("error")[0]["retryable"]
    began = time.monotonic()
    refused = await app.client.post("/chat", json={"message": "Hi."}, headers=app.headers())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
    assert refused.headers["retry-after"]
    assert time.monotonic() - began < 7
    await asyncio.sleep(10)
    await asyncio.to_thread(postgres_back.start)
    assert await recovers(app, seconds=20) < 20
    await finish(app, heard, "Go on.")
    told = await conversation(app, heard.thread_id)
    assert told == [("user", "Go on."), ("assistant", "Second try.")]
    await settles(app, before)


async def test_a_backend_of_postgres_killed_in_mid_stream_loses_nothing(
    app: AppProcess, engine: ScriptedEngine, postgres_back: Postgres, sql: Any
) -> None:
    before, hold = await held(app), Hold()
    engine.queue = [[chunk({"content": "Half, "}), hold, *say("whole.")]]
    engine.default = lambda _body: say("Half, whole.")

    async def kill() -> None:
        [(pid,)] = sql.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'agent_app' LIMIT 1"
        ).fetchall()
        os.kill(pid, signal.SIGKILL)  # PostgreSQL then restarts them all

    heard = await hear_to_its_end(app, "Go on.", hold, kill)
    forget(sql)
    await finish(app, heard, "Go on.")
    told = await conversation(app, heard.thread_id)
    assert told == [("user", "Go on."), ("assistant", "Half, whole.")]
    assert await recovers(app, seconds=10) < 10
    await settles(app, before)


async def limits_are_told(app: AppProcess, *, seconds: float) -> str:
    """Ask until an answer says what limits there are: Redis is heard again."""
    body, deadline = {"message": "Hi.", "stream": False}, time.monotonic() + seconds
    while time.monotonic() < deadline:
        response = await app.client.post("/chat", json=body, headers=app.headers())
        if told := response.headers.get("x-ratelimit-limit-requests"):
            return str(told)
        await asyncio.sleep(0.1)
    raise AssertionError(f"limits are not enforced {seconds} s after Redis was back")


async def test_redis_down_under_load_and_back_is_not_seen_by_clients(
    app: AppProcess, engine: ScriptedEngine, redis_server: RedisServer
) -> None:
    app.run("keys", "limit", "test", "requests_per_minute=100000", "tokens_per_minute=100000000")
    await asyncio.sleep(5.1)  # keys are remembered for five seconds
    before, ending, answers = await held(app), asyncio.Event(), 0
    slowest = 0.0

    async def load() -> None:
        nonlocal answers, slowest
        while not ending.is_set():
            began = time.monotonic()
            assert (await app.chat("Hello.")).names()[-1] == "done"
            slowest = max(slowest, time.monotonic() - began)
            answers += 1

    loading = [asyncio.create_task(load()) for _ in range(4)]
    await asyncio.sleep(1)
    await asyncio.to_thread(redis_server.stop)
    try:
        await asyncio.sleep(3)
        during = answers
        assert not (await app.client.get("/ready")).is_success
    finally:
        await asyncio.to_thread(redis_server.start)
    await asyncio.sleep(2)
    ending.set()
    await asyncio.gather(*loading)
    assert during > 10
    assert answers > during
    assert slowest < 3
    page = await app.metrics()
    assert figure(page, "agent_app_limits_open_total") > 0
    assert await limits_are_told(app, seconds=5) == "100000"
    await settles(app, before, connections=25)  # as many as four clients at once ask for


async def test_clients_that_redis_closes_cost_no_request_and_the_app_stays_ready(
    app: AppProcess, redis_server: RedisServer
) -> None:
    app.run("keys", "limit", "test", "requests_per_minute=100000")
    await limits_are_told(app, seconds=10)
    before = await held(app)
    for _ in range(5):
        closing = asyncio.create_task(close_its_clients(redis_server, busy_seconds=0.3))
        await asyncio.sleep(0.1)
        ready, *heard = await asyncio.gather(
            app.client.get("/ready"), *(app.chat("Hello.") for _ in range(4))
        )
        await closing
        assert ready.status_code == 200, ready.text
        assert [each.names()[-1] for each in heard] == ["done"] * 4
    page = await app.metrics()
    assert figure(page, "agent_app_limits_open_total") == 0, app.log()[-3000:]
    await settles(app, before, connections=25)
