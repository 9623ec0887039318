"""Steps that wait for an engine: what clients hear, and what becomes of the places."""

import asyncio
import contextlib
import copy
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from app_process import AppProcess, Heard
from data_servers import RedisServer
from job_client import submit
from job_client import until as job_until
from scripted_engine import ABORT, Hold, ScriptedEngine, chunk, say


@pytest.fixture
def configuration(configuration: dict[str, Any]) -> dict[str, Any]:
    configuration["models"]["demo"]["concurrency"] = 1
    configuration["limits"]["lease_seconds"] = 1.5
    return configuration


@pytest.fixture
async def second(
    tmp_path: Path, configuration: dict[str, Any], template: str
) -> AsyncIterator[AppProcess]:
    """Another process of the same site, not yet started."""
    folder = tmp_path / "second"
    folder.mkdir()
    process = AppProcess(folder, configuration)
    process.key = template
    yield process
    await process.client.aclose()
    if process.process is not None and process.process.is_alive():
        await process.kill()


def changed(app: AppProcess, configuration: dict[str, Any], **limits: Any) -> AppProcess:
    """The app with other limits, on its own ports."""
    configuration = copy.deepcopy(configuration)
    configuration["limits"] |= limits
    process = AppProcess(app.folder, configuration)
    process.key = app.key
    return process


async def metric(app: AppProcess, name: str) -> float:
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.M))


async def until(holds: Any, *, seconds: float, what: str) -> float:
    """Wait until an awaited condition holds; return how long it took."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < seconds, f"{what} did not happen within {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def complete(app: AppProcess, content: str = "Hi.", key: str = "") -> httpx2.Response:
    return await app.client.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": content}]},
        headers={"Authorization": f"Bearer {key or app.key}"},
    )


def asked(engine: ScriptedEngine) -> list[str]:
    return [request["messages"][-1]["content"] for request in engine.requests]


async def start_waiting(app: AppProcess, message: str) -> tuple["asyncio.Task[Any]", Heard]:
    """Open a stream that has to wait; return when it knows its position."""
    heard_at_last: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()

    async def stream() -> None:
        async with app.streaming({"message": message}) as (heard, events):
            async for _ in events:
                if not heard_at_last.done():
                    heard_at_last.set_result(heard)

    task = asyncio.create_task(stream())
    return task, await asyncio.wait_for(heard_at_last, 5)


async def knows(heard: Heard, place: int) -> None:
    """Wait until a client was told its place; that is once a second."""

    async def told() -> bool:
        return heard.of("queued")[-1]["position"] == place

    await until(told, seconds=5, what=f"place {place}")


async def test_a_waiting_client_hears_its_position_as_it_falls(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    holds = [Hold() for _ in range(4)]
    engine.queue = [[hold, *say("done")] for hold in holds]
    first = asyncio.create_task(app.chat("0"))
    await holds[0].reached.wait()
    streams = [await start_waiting(app, str(n)) for n in range(1, 4)]
    for served, hold in enumerate(holds):
        await asyncio.wait_for(hold.reached.wait(), 5)
        for place, (_, heard) in enumerate(streams[served:], 1):
            await knows(heard, place)
        hold.release.set()
    await asyncio.gather(first, *(task for task, _ in streams))
    began = await first
    assert began.names()[-3:] == ["token", "usage", "done"]
    told = [[event["position"] for event in heard.of("queued")] for _, heard in streams]
    assert told == [[1], [2, 1], [3, 2, 1]]
    assert all(0 < e["at_most_seconds"] <= 60 for _, heard in streams for e in heard.of("queued"))
    assert all(heard.names()[-3:] == ["token", "usage", "done"] for _, heard in streams)
    assert asked(engine) == ["0", "1", "2", "3"]
    assert await metric(app, "agent_app_queue_length") == 0
    assert await metric(app, "agent_app_queue_wait_seconds_count") == 4  # the first, for a moment
    assert await metric(app, "agent_app_queue_position_sum") == 1 + 2 + 3 + len(began.of("queued"))


async def test_the_wait_is_bounded_and_the_thread_can_go_on(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    app = changed(prepared, configuration, queue_seconds=1)
    await app.start()
    hold = Hold()
    engine.queue = [[hold, *say("done")]]
    first = asyncio.create_task(complete(app))
    await hold.reached.wait()
    began = time.monotonic()
    heard, refused = await asyncio.gather(app.chat("Hello."), complete(app))
    assert 0.9 < time.monotonic() - began < 2
    error = heard.of("error")[0]
    assert (error["code"], error["retryable"]) == ("queue_timeout", True)
    assert error["retry_after"] >= 1
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "queue_timeout"
    assert int(refused.headers["retry-after"]) >= 1
    assert await metric(app, "agent_app_queue_refused_total") == 2
    hold.release.set()
    assert (await first).status_code == 200
    heard = await app.chat(thread_id=heard.thread_id, resume=True)
    assert heard.text() == "ok"
    await app.end()
    await app.client.aclose()


async def test_a_job_waits_behind_what_its_key_asks_after_it(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[hold, *say("done")]]
    first = asyncio.create_task(complete(app, "first"))
    await hold.reached.wait()
    job = await submit(app, "job")

    async def waits() -> bool:
        return await metric(app, "agent_app_queue_length") == 1

    await until(waits, seconds=5, what="the job's wait")
    later, heard = await start_waiting(app, "later")
    assert [event["position"] for event in heard.of("queued")] == [1]
    hold.release.set()
    await asyncio.gather(first, later)
    assert (await job_until(app, job))["status"] == "done"
    assert asked(engine) == ["first", "later", "job"]


async def test_retry_after_is_what_the_rate_makes_it(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    app = changed(prepared, configuration, queue_length=6)
    await app.start()

    class Pause(Hold):
        async def wait(self) -> None:
            await asyncio.sleep(0.5)

        def __init__(self) -> None:
            super().__init__()
            self.release = self  # type: ignore[assignment]

    engine.default = lambda _body: [Pause(), *say("ok")]
    running = [asyncio.create_task(complete(app, str(n))) for n in range(7)]
    await asyncio.sleep(2.2)
    late = await asyncio.gather(*(complete(app, f"late{n}") for n in range(10)))
    refused = [answer for answer in late if answer.status_code == 503]
    assert refused
    assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
    # Six wait, and nearly two a second get their turn.
    assert all(2 <= int(answer.headers["retry-after"]) <= 5 for answer in refused)
    assert all(answer.status_code == 200 for answer in await asyncio.gather(*running))
    await app.end()
    await app.client.aclose()


async def test_a_full_queue_makes_the_greedy_key_give_way(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    app = changed(prepared, configuration, queue_length=2)
    await app.start()
    other = app.run("keys", "create", "--name", "other")
    hold = Hold()
    engine.queue = [[hold, *say("done")]]
    greedy = [asyncio.create_task(complete(app, "0"))]
    await hold.reached.wait()
    for n in (1, 2):
        greedy.append(asyncio.create_task(complete(app, str(n))))
        await asyncio.sleep(0.1)
    began = time.monotonic()
    assert (await complete(app, "3")).json()["error"]["code"] == "queue_full"
    assert time.monotonic() - began < 1
    calm = asyncio.create_task(complete(app, "calm", other))
    pushed_out = await asyncio.wait_for(greedy[2], 2)
    assert pushed_out.status_code == 503
    hold.release.set()
    assert [(await task).status_code for task in (greedy[0], greedy[1], calm)] == [200] * 3
    await app.end()
    await app.client.aclose()


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue_at_once(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[hold, *say("done")]]
    first = asyncio.create_task(app.chat("0"))
    await hold.reached.wait()
    leaves, _ = await start_waiting(app, "leaves")
    stays, heard = await start_waiting(app, "stays")
    assert heard.of("queued")[0]["position"] == 2
    leaves.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaves

    async def left() -> bool:
        return await metric(app, "agent_app_queue_length") == 1

    await until(left, seconds=1, what="its leave")
    hold.release.set()
    await asyncio.gather(first, stays)
    assert asked(engine) == ["0", "stays"]


async def test_a_step_that_is_retried_keeps_its_place(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "half"}), hold, ABORT], say("whole"), say("second")]
    first = asyncio.create_task(app.chat("first"))
    await hold.reached.wait()
    second, heard = await start_waiting(app, "second")
    hold.release.set()
    assert (await first).text() == "whole"
    await second
    assert heard.text() == "second"
    assert asked(engine) == ["first", "first", "second"]


async def test_processes_share_the_places_and_none_waits_for_a_dead_one(
    app: AppProcess, second: AppProcess, engine: ScriptedEngine
) -> None:
    await second.start()
    hold = Hold()
    engine.queue = [[hold, *say("never")]]
    lost = asyncio.create_task(complete(app, "lost"))
    await hold.reached.wait()
    waits = asyncio.create_task(complete(second, "waits"))
    await asyncio.sleep(2.5)  # longer than a lease: it is renewed
    assert asked(engine) == ["lost"]
    began = time.monotonic()
    await app.kill()
    assert (await waits).status_code == 200
    spent = time.monotonic() - began
    print(f"\nplaces of a killed process came free after {spent:.2f} s; the lease is 1.5 s")
    assert spent < 1.5 + 0.5
    await asyncio.gather(lost, return_exceptions=True)
    hold.release.set()


async def test_a_place_that_comes_free_wakes_the_other_process_at_once(
    app: AppProcess, second: AppProcess, engine: ScriptedEngine
) -> None:
    await second.start()
    spent = []
    for _ in range(10):
        hold = Hold()
        engine.queue = [[hold, *say("done")], say("next")]
        first = asyncio.create_task(complete(app))
        await hold.reached.wait()
        waits = asyncio.create_task(complete(second))
        await asyncio.sleep(0.1)
        hold.release.set()
        await first
        began = time.monotonic()
        assert (await waits).status_code == 200
        spent.append(time.monotonic() - began)
    spent.sort()
    print(f"\nfrom one process's end to the other's whole answer: median {spent[5] * 1000:.0f} ms")
    assert spent[5] < 0.2  # polling takes 0.25 s at worst


async def test_without_redis_each_process_goes_on_with_its_share(
    app: AppProcess, second: AppProcess, engine: ScriptedEngine, redis_server: RedisServer
) -> None:
    await second.start()
    other = app.run("keys", "create", "--name", "other")
    hold = Hold()
    engine.queue = [[hold, *say("done")]]
    first = asyncio.create_task(complete(app, "0"))
    await hold.reached.wait()
    waits = asyncio.create_task(complete(app, "1"))
    await asyncio.sleep(0.2)
    redis_server.stop()
    try:
        assert (await complete(second, "elsewhere")).status_code == 200
        late = asyncio.create_task(complete(app, "2", other))
        await asyncio.sleep(1.5)
        assert "1" not in asked(engine)  # its own place is in use
        hold.release.set()
        answers = await asyncio.gather(first, waits, late)
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert await metric(app, "agent_app_queue_alone_total") == 2
        assert "queue_not_shared" in app.log()
    finally:
        redis_server.start()

    async def shared() -> bool:
        return all("queue_shared_again" in process.log() for process in (app, second))

    await until(shared, seconds=10, what="sharing again")
    # What each had taken for its own is given back with the reports after that, one a second.
    await asyncio.sleep(3)
    hold = Hold()
    engine.queue = [[hold, *say("done")], say("next")]
    first = asyncio.create_task(complete(app, "3"))
    await hold.reached.wait()
    waits = asyncio.create_task(complete(second, "4"))
    await asyncio.sleep(0.5)
    assert asked(engine)[-1] == "3"
    hold.release.set()
    assert [(await task).status_code for task in (first, waits)] == [200, 200]


async def test_a_process_that_ends_well_leaves_its_places_at_once(
    app: AppProcess, second: AppProcess
) -> None:
    await second.start()
    assert (await complete(app)).status_code == 200
    assert await app.end() == 0
    began = time.monotonic()
    assert (await complete(second)).status_code == 200
    assert time.monotonic() - began < 1


async def test_priority_is_sent_only_where_it_is_wanted(
    app: AppProcess, second: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    assert (await complete(app)).status_code == 200
    assert "priority" not in engine.requests[-1]
    configuration["models"]["demo"]["engine_priority"] = True
    app = changed(second, configuration)
    await app.start()
    for _ in range(3):
        assert (await complete(app)).status_code == 200
    priorities = [request["priority"] for request in engine.requests[1:]]
    assert all(isinstance(number, int) and number >= 0 for number in priorities)
    await app.end()
    await app.client.aclose()


async def test_a_weight_is_set_and_checked(app: AppProcess) -> None:
    app.run("keys", "limit", "test", "weight=2")
    assert "weight=2" in app.run("keys", "list")
    done = app.complete("keys", "limit", "test", "weight=0")
    assert done.returncode == 1
    assert "from 1 to 1000" in done.stderr
    app.run("keys", "limit", "test", "weight=default")
    assert "weight" not in app.run("keys", "list")
