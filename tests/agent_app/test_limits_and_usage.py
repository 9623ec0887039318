import asyncio
import hashlib
import json
from typing import Any

import httpx2
from app_process import AppProcess
from data_servers import RedisServer
from lossy_redis import LossyRedis
from scripted_engine import Hold, Pause, ScriptedEngine, chunk, say

from agent_app.access import limits


def make_key(app: AppProcess, name: str, *limits: str) -> str:
    words = [word for limit in limits for word in ("--limit", limit)]
    return app.run("keys", "create", "--name", name, *words)


async def say_hi(app: AppProcess, key: str, **headers: str) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 20}
    return await app.client.post(
        "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}", **headers}
    )


async def metrics(app: AppProcess) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text


async def test_requests_beyond_the_limit_get_429_and_another_key_does_not_notice(
    app: AppProcess,
) -> None:
    greedy = make_key(app, "greedy", "requests_per_minute=3")
    calm = make_key(app, "calm", "requests_per_minute=3")
    answers = await asyncio.gather(*(say_hi(app, greedy) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 7
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["retryable"]
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["x-ratelimit-limit-requests"] == "3"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    answer = await say_hi(app, calm)
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "2"
    assert (await say_hi(app, app.key)).status_code == 200


async def test_tokens_are_reserved_at_the_start_and_put_right_at_the_end(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    key = make_key(app, "test2", "tokens_per_minute=100")
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold, *say("b")]]
    first = asyncio.create_task(say_hi(app, key))
    await hold.reached.wait()
    # Each reserves 20 and 12 for its prompt, and has used 15 in the end.
    during = [(await say_hi(app, key)).status_code for _ in range(4)]
    assert during == [200, 200, 200, 429]
    hold.release.set()
    assert (await first).status_code == 200
    assert [(await say_hi(app, key)).status_code for _ in range(2)] == [200, 429]


async def test_a_long_answer_is_charged_in_full(app: AppProcess, engine: ScriptedEngine) -> None:
    key = make_key(app, "test2", "tokens_per_minute=100")
    usage = {"choices": [], "usage": {"prompt_tokens": 150, "completion_tokens": 50}}
    engine.queue = [[chunk({"content": "long"}), chunk(reason="stop"), usage]]
    assert (await say_hi(app, key)).status_code == 200
    refused = await say_hi(app, key)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 60  # twice a minute's worth is gone


async def test_concurrent_runs_are_counted_and_given_back(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    key = make_key(app, "test2", "concurrent_runs=1")
    hold = Hold()
    engine.queue = [[hold, *say("done")]]
    first = asyncio.create_task(say_hi(app, key))
    await hold.reached.wait()
    refused = await say_hi(app, key)
    assert refused.status_code == 429
    assert "1 runs at a time" in refused.json()["error"]["message"]
    hold.release.set()
    assert (await first).status_code == 200
    assert (await say_hi(app, key)).status_code == 200


async def test_the_place_of_a_killed_process_comes_free(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["limits"]["lease_seconds"] = 1.5
    app = AppProcess(prepared.folder, configuration)
    await app.start()
    key = make_key(app, "test2", "concurrent_runs=1")
    hold = Hold()
    engine.queue = [[hold, *say("never")]]
    lost = asyncio.create_task(say_hi(app, key))
    await hold.reached.wait()
    await asyncio.sleep(2.5)  # longer than a lease: it is renewed
    assert (await say_hi(app, key)).status_code == 429
    await app.kill()
    await asyncio.gather(lost, return_exceptions=True)
    hold.release.set()
    await app.start()
    await asyncio.sleep(2)
    assert (await say_hi(app, key)).status_code == 200
    await app.end()
    await app.client.aclose()


async def test_without_redis_runs_are_let_in_and_counted(
    app: AppProcess, redis_server: RedisServer
) -> None:
    key = make_key(app, "test2", "requests_per_minute=1")
    redis_server.stop()
    try:
        assert [(await say_hi(app, key)).status_code for _ in range(3)] == [200, 200, 200]
        assert "agent_app_limits_open_total 3.0" in await metrics(app)
        assert "limits_not_enforced" in app.log()
    finally:
        redis_server.start()
    await asyncio.sleep(1.1)
    assert [(await say_hi(app, key)).status_code for _ in range(2)] == [200, 429]


async def test_a_limit_is_taken_once_where_redis_took_it_and_its_answer_was_lost(
    prepared: AppProcess, configuration: dict[str, Any], redis_server: RedisServer
) -> None:
    async with LossyRedis(redis_server.port).serving() as lossy:
        configuration["redis"]["state_url"] = f"redis://127.0.0.1:{lossy.port}/1"
        app = AppProcess(prepared.folder, configuration)
        await app.start()
        try:
            key = make_key(app, "test2", "requests_per_minute=3", "concurrent_runs=1")
            assert (await say_hi(app, key)).headers["x-ratelimit-remaining-requests"] == "2"
            lossy.lose = hashlib.sha1(limits._TAKE.encode()).hexdigest().encode()
            answer = await say_hi(app, key)
            assert (answer.status_code, lossy.lost) == (200, 1), answer.text
            assert answer.headers["x-ratelimit-remaining-requests"] == "1"
            assert [(await say_hi(app, key)).status_code for _ in range(2)] == [200, 429]
            assert "limits_not_enforced" not in app.log()
        finally:
            await app.end()
            await app.client.aclose()


async def test_budgets_warn_mark_and_refuse(app: AppProcess) -> None:
    key = make_key(app, "test2", "budget_soft=10", "budget_medium=20", "budget_hard=40")
    answers = [await say_hi(app, key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers.get("x-budget") for answer in answers[:3]] == [None, None, "medium"]
    refused = answers[3]
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert not refused.json()["error"]["retryable"]
    assert refused.headers["x-should-retry"] == "false"
    page = await metrics(app)
    for level in ("soft", "medium", "hard"):
        assert f'agent_app_budget_passed_total{{key="test2",level="{level}"}} 1.0' in page


async def test_usage_is_by_key_model_and_feature_and_nobody_elses(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.default = lambda _body: [chunk({"content": "o"}), Pause(0.02), *say("k")]
    other = make_key(app, "other")
    await app.chat("Hello.")
    await say_hi(app, app.key, **{"X-Feature": "search"})
    await say_hi(app, app.key, **{"X-Feature": "search"})
    await say_hi(app, other)
    assert (await say_hi(app, app.key, **{"X-Feature": "Not One"})).status_code == 400
    mine = (await app.client.get("/usage", headers=app.headers())).json()
    assert mine["totals"] == {
        "requests": 3, "prompt_tokens": 30, "completion_tokens": 15, "total_tokens": 45,
    }  # fmt: skip
    assert [(row["feature"], row["requests"]) for row in mine["usage"]] == [("", 1), ("search", 2)]
    assert {row["key"] for row in mine["usage"]} == {"test"}
    assert all(row["engine_seconds"] > 0 for row in mine["usage"])
    assert (await app.client.get("/usage/all", headers=app.headers())).status_code == 403
    admin = app.run("keys", "create", "--name", "boss", "--scope", "admin")
    everyone = await app.client.get("/usage/all", headers={"Authorization": f"Bearer {admin}"})
    assert {row["key"] for row in everyone.json()["usage"]} == {"test", "other"}
    assert len(json.loads(app.run("usage", "--key", "other", "--json"))) == 1
    assert "prompt_tokens" in app.run("usage")
    page = await metrics(app)
    assert 'agent_app_key_tokens_total{key="test",kind="prompt",model="demo"} 30.0' in page


async def test_a_run_that_crashed_and_was_resumed_is_one_request(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold]]
    async with app.streaming({"message": "Hi."}) as (heard, events):
        await anext(events)
        await app.kill()
    hold.release.set()
    await app.start()
    for _ in range(2):  # the second is told again
        await app.chat(thread_id=heard.thread_id, resume=True)
    found = sql.execute("SELECT requests, prompt_tokens, completion_tokens FROM app.usage")
    assert found.fetchall() == [(1, 10, 5)]


async def test_a_thread_of_another_key_is_not_found(app: AppProcess) -> None:
    heard = await app.chat("Mine.")
    other = make_key(app, "other")
    answer = await app.client.post(
        "/chat",
        json={"message": "Yours?", "thread_id": heard.thread_id},
        headers={"Authorization": f"Bearer {other}"},
    )
    assert answer.status_code == 404


async def test_a_rotated_key_opens_with_both_secrets_until_the_overlap_ends(
    app: AppProcess, sql
) -> None:
    heard = await app.chat("Hello.")
    new = app.run("keys", "rotate", "test", "--overlap", "1h")
    old, app.key = app.key, new
    assert (await say_hi(app, old)).status_code == 200
    await app.chat("Again.", thread_id=heard.thread_id)  # the same key, so the same threads
    sql.execute("UPDATE app.api_keys SET previous_until = now()")
    await asyncio.sleep(5.1)  # the cache
    assert (await say_hi(app, old)).status_code == 401
    assert (await say_hi(app, new)).status_code == 200


async def test_limits_are_changed_and_listed(app: AppProcess) -> None:
    app.run("keys", "limit", "test", "requests_per_minute=1", "budget_hard=9")
    app.run("keys", "limit", "test", "budget_hard=default")
    assert app.run("keys", "list").endswith("requests_per_minute=1")
    done = app.complete("keys", "limit", "test", "speed=1")
    assert done.returncode == 1
    assert "names: requests_per_minute" in done.stderr
    assert [(await say_hi(app, app.key)).status_code for _ in range(2)] == [200, 429]
