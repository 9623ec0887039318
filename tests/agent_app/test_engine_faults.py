import asyncio
import time

import httpx2
import pytest
from app_process import AppProcess
from scripted_engine import (
    ABORT,
    CUT,
    ERROR_EVENT,
    USAGE,
    Hold,
    ScriptedEngine,
    Status,
    call_tool,
    chunk,
    say,
)

from tests.ports import free_port

FAULTS = {
    "abort inside HTTP 200": [ABORT],
    "error event inside HTTP 200": [ERROR_EVENT],
    "HTTP 500": [Status(500)],
    "HTTP 503": [Status(503)],
    "HTTP 429": [Status(429)],
    "a cut connection": [CUT],
    "garbage": ["garbage"],
    "an end without a finish_reason": [chunk()],
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_before_the_first_token_is_not_seen(
    app: AppProcess, engine: ScriptedEngine, fault: str
) -> None:
    engine.queue = [FAULTS[fault], say("fine")]
    heard = await app.chat("Hello.")
    assert heard.names() == ["token", "usage", "done"]
    assert len(engine.requests) == 2


@pytest.mark.parametrize("fault", [ABORT, ERROR_EVENT, CUT])
async def test_a_fault_in_mid_stream_retracts_and_begins_anew(
    app: AppProcess, engine: ScriptedEngine, fault: object
) -> None:
    engine.queue = [[chunk({"content": "half an"}), fault], say("whole ", "answer")]
    heard = await app.chat("Hello.")
    assert heard.names() == ["token", "retract", "token", "token", "usage", "done"]
    assert heard.of("retract")[0]["message_id"] == heard.of("token")[0]["message_id"]
    assert heard.text() == "whole answer"


async def test_a_restarting_engine_is_waited_for(
    prepared: AppProcess, configuration: dict[str, object]
) -> None:
    port = free_port()
    configuration["models"] = {"demo": {"endpoints": [f"http://127.0.0.1:{port}"]}}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    talking = asyncio.create_task(app.chat("Hello."))
    await asyncio.sleep(1)
    assert not talking.done()
    async with ScriptedEngine().serving(port):
        assert (await talking).text() == "ok"
    assert await app.end() == 0
    await app.client.aclose()


async def test_an_engine_that_stays_away_gives_a_retryable_error_and_the_thread_goes_on(
    prepared: AppProcess, configuration: dict[str, object], engine: ScriptedEngine
) -> None:
    configuration["limits"] = {"engine_wait_seconds": 0.5}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    engine.default = lambda _body: [Status(503)]
    heard = await app.chat("Hello.")
    assert heard.names() == ["error"]
    error = heard.of("error")[0]
    assert (error["code"], error["retryable"]) == ("engine_unavailable", True)
    assert "127.0.0.1" not in str(error)
    assert "secret" not in str(error)
    engine.default = lambda _body: say("back")
    await asyncio.sleep(1.1)  # the engine's ejection
    assert (await app.chat("Hello.", thread_id=heard.thread_id)).text() == "back"
    assert [m["role"] for m in engine.requests[-1]["messages"]] == ["user"]
    assert await app.end() == 0
    await app.client.aclose()


async def test_a_refusal_is_not_retried(app: AppProcess, engine: ScriptedEngine) -> None:
    engine.queue = [[Status(400)]]
    heard = await app.chat("Hello.")
    assert heard.of("error")[0]["code"] == "engine_refused"
    assert not heard.of("error")[0]["retryable"]
    assert len(engine.requests) == 1


async def test_requests_move_to_the_engine_that_works(
    prepared: AppProcess, configuration: dict[str, object], engine: ScriptedEngine
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    configuration["models"] = {"demo": {"endpoints": [dead, engine.url]}}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    answers = await asyncio.gather(*(app.chat(f"Hello {n}.") for n in range(6)))
    assert [heard.text() for heard in answers] == ["ok"] * 6
    await app.end()
    await app.client.aclose()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_engine_within_a_second(
    app: AppProcess, engine: ScriptedEngine, stream: bool
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold]]
    request = app.client.build_request(
        "POST", "/chat", json={"message": "Hello.", "stream": stream}, headers=app.headers()
    )
    leaving = asyncio.create_task(_read(app.client, request))
    async with asyncio.timeout(10):
        await hold.reached.wait()
    left = time.monotonic()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await engine.idle(seconds=2)
    assert time.monotonic() - left < 1


async def _read(client: httpx2.AsyncClient, request: httpx2.Request) -> None:
    response = await client.send(request, stream=True)
    async for _ in response.aiter_lines():
        pass


async def test_a_client_that_left_can_come_back_at_once(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [call_tool("slots"), [chunk({"content": "Two"}), hold], say("Two slots.")]
    async with app.streaming({"message": "Slots?"}) as (heard, events):
        while "token" not in heard.names():
            await anext(events)
    again = await app.chat("Slots?", thread_id=heard.thread_id)
    assert again.names() == ["token", "usage", "done"]
    assert [m["role"] for m in engine.requests[-1]["messages"]] == ["user", "assistant", "tool"]


async def test_usage_is_counted_by_chunks_where_the_engine_gives_none(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    steps = say("a", "b")
    steps.remove(USAGE)
    engine.queue = [steps]
    assert (await app.chat("Hello.")).of("usage")[0]["completion_tokens"] == 2
