"""What the fair queue costs where nothing waits, and how soon it wakes where something does."""

import asyncio
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
import redis.asyncio as redis
from data_servers import PASSWORD, RedisServer
from results import write_result

from agent_app.agent.pool import EnginePool
from agent_app.agent.queue_terms import Flow
from agent_app.agent.shared_queue import SharedQueue
from agent_app.agent.turnstile import Place, Turnstile
from agent_app.config import Limits, Model

pytestmark = pytest.mark.bench

LOOPS = 20_000
STREAMS = 300
WAKES = 60
TOKENS = 64
FLOW = Flow("00000000-0000-0000-0000-000000000000")


class Deaf(SharedQueue):
    """A queue whose processes only poll."""

    async def listen(self, heard: Callable[[str], None]) -> None:
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def turnstile(
    server: RedisServer, process: str, capacity: int, kind: type[SharedQueue] = SharedQueue
) -> AsyncIterator[Turnstile]:
    client = redis.Redis.from_url(f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0")
    made = Turnstile(
        "demo", Limits(), process=process,
        shared=kind(client, "demo", process), capacity=lambda: capacity,
    )  # fmt: skip
    keeping = asyncio.create_task(made.keep())
    await asyncio.sleep(0.2)
    try:
        yield made
    finally:
        keeping.cancel()
        await made.close()
        await client.aclose()


async def enter(where: Turnstile) -> Place:
    place = where.ask(FLOW, prompt=10, most=100)
    async for _ in place.wait():
        pass
    return place


async def reserve_seconds(server: RedisServer) -> float:
    async with turnstile(server, "p:1", 256) as quiet:
        began = time.perf_counter()
        for _ in range(LOOPS):
            place = quiet.ask(FLOW, prompt=10, most=100)
            assert place.granted
            place.leave()
        return (time.perf_counter() - began) / LOOPS


async def asked_seconds(server: RedisServer) -> float:
    spent = []
    async with turnstile(server, "p:1", 1) as narrow:
        for _ in range(200):
            began = time.perf_counter()
            place = await enter(narrow)
            spent.append(time.perf_counter() - began)
            place.leave()
            await asyncio.sleep(0.002)
    return statistics.median(spent)


async def wake_seconds(server: RedisServer, kind: type[SharedQueue], times: int) -> float:
    spent = []
    async with (
        turnstile(server, "p:1", 1, kind) as first,
        turnstile(server, "p:2", 1, kind) as second,
    ):
        for _ in range(times):
            place = await enter(first)
            waits = asyncio.create_task(enter(second))
            await asyncio.sleep(0.02)
            began = time.perf_counter()
            place.leave()
            place = await waits
            spent.append(time.perf_counter() - began)
            place.leave()
            await asyncio.sleep(0.02)
    return statistics.median(spent)


def answer(_request: httpx2.Request) -> httpx2.Response:
    chunks = [{"choices": [{"delta": {"content": f"w{n} "}}]} for n in range(TOKENS)]
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    events = [*chunks, end, {"usage": {"prompt_tokens": 10, "completion_tokens": TOKENS}}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return httpx2.Response(200, text=text)


async def stream_seconds(server: RedisServer) -> tuple[float, float]:
    """Median seconds of a stream without and with the turnstile, taken in turns."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    body = {"messages": [{"role": "user", "content": "Hello there."}], "max_tokens": 100}
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    pool = EnginePool("demo", Model(endpoints=("http://engine:1",)), Limits(), client)  # type: ignore[arg-type]
    ids = (str(n) for n in itertools.count())
    async with client, turnstile(server, "p:1", 256) as made:
        for n in range(2 * STREAMS):
            pool.turnstile = made if n % 2 else None
            began = time.perf_counter()
            stream = pool.stream(body, request_ids=ids, may_retract=True, flow=FLOW)
            async for _ in stream:
                pass
            spent[bool(n % 2)].append(time.perf_counter() - began)
    return statistics.median(spent[False]), statistics.median(spent[True])


async def test_a_step_that_need_not_wait_pays_microseconds(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    try:
        reserve, asked = await reserve_seconds(server), await asked_seconds(server)
        without, through = await stream_seconds(server)
        message = await wake_seconds(server, SharedQueue, WAKES)
        polled = await wake_seconds(server, Deaf, 15)
    finally:
        server.stop()
    write_result(
        "turnstile",
        "The fair queue's cost",
        ("what", "median", "ratio"),
        [
            ("a place from the reserve, taken and given back", f"{reserve * 1e6:.1f} µs", "1"),
            ("a place asked of Redis", f"{asked * 1e6:.0f} µs", f"{asked / reserve:.0f}"),
            (f"a stream of {TOKENS} tokens without turnstile", f"{without * 1e3:.2f} ms", "1"),
            ("the same through it", f"{through * 1e3:.2f} ms", f"{through / without:.3f}"),
            ("a place freed by one process, taken by another", f"{message * 1e3:.1f} ms", "1"),
            ("the same by polling alone", f"{polled * 1e3:.0f} ms", f"{polled / message:.0f}"),
        ],
        f"The reserve: mean of {LOOPS}. The engine of the streams is a canned answer in memory, so "
        "their ratio is the worst there is. Polling: every 0.25 s, which is what is left where a "
        "message is lost.",
    )
    assert reserve < 100e-6
    assert through / without < 1.15
    assert message < polled / 5
