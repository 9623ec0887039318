"""The cache of answers: what it serves, and above all what it never serves."""

import asyncio
import json
from typing import Any
from uuid import UUID

import httpx2
import pytest
import redis.asyncio as redis
from app_process import AppProcess
from data_servers import PASSWORD, RedisServer
from scripted_cloud import SECRET, ScriptedCloud
from scripted_engine import ABORT, ScriptedEngine, Status, call_tool, chunk, say

from tests.ports import free_port

THEIR_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


@pytest.fixture
def configuration(configuration: dict[str, Any], redis_server: RedisServer) -> dict[str, Any]:
    configuration["models"]["demo"]["revision"] = "r1"
    configuration["cache"] = {"exact": True, "seconds": 60}
    return configuration


@pytest.fixture(autouse=True)
async def empty(redis_server: RedisServer) -> None:
    """Every test's key has the same id: it comes with the template."""
    client = redis.Redis(port=redis_server.port, db=0, password=PASSWORD)
    await client.flushdb()
    await client.aclose()


@pytest.fixture(autouse=True)
def numbered(engine: ScriptedEngine) -> None:
    """Each answer of the engine differs, so that one from the cache is known."""
    engine.default = lambda _body: say("answer ", str(len(engine.requests)))


async def ask(
    app: AppProcess, text: str = "Hello.", *, key: str = "", headers: Any = None, **body: Any
) -> tuple[str, str]:
    """Ask without a thread; return the cache's word and the answer's."""
    messages = body.pop("messages", [{"role": "user", "content": text}])
    response = await app.client.post(
        "/v1/chat/completions",
        json={"messages": messages, **body},
        headers={"Authorization": f"Bearer {key or app.key}", **(headers or {})},
    )
    assert response.status_code == 200, response.text
    return response.headers["x-cache"], response.json()["choices"][0]["message"]["content"]


async def say_on_thread(app: AppProcess, text: str, thread: str = "", **headers: str) -> Any:
    body = {"message": text, **({"thread_id": thread} if thread else {})}
    response = await app.client.post("/chat", json=body, headers={**app.headers(), **headers})
    assert response.status_code == 200, response.text
    names = [line[7:] for line in response.text.splitlines() if line.startswith("event: ")]
    data = [json.loads(line[6:]) for line in response.text.splitlines() if line[:6] == "data: "]
    return response.headers["x-cache"], dict(zip(names, data, strict=True)), names


async def metrics(app: AppProcess) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text


async def test_the_same_request_is_answered_once_and_costs_nothing_then(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    assert await ask(app) == ("miss", "answer 1")
    response = await app.client.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "Hello."}]},
        headers=app.headers(),
    )
    assert response.headers["x-cache"] == "hit"
    assert response.json()["usage"] == {
        "cached": True, "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
    }  # fmt: skip
    assert len(engine.requests) == 1
    assert sql.execute("SELECT sum(requests)::int, sum(prompt_tokens)::int FROM app.usage"
                       ).fetchone() == (2, 10)  # fmt: skip
    page = await metrics(app)
    assert 'agent_app_cache_total{kind="exact",outcome="hit",reason=""} 1.0' in page
    assert 'agent_app_cache_total{kind="exact",outcome="miss",reason=""} 1.0' in page


async def test_a_hit_streams_like_any_answer(app: AppProcess, engine: ScriptedEngine) -> None:
    long = " ".join(f"word{n}" for n in range(60))
    engine.queue = [say(long)]
    body = {"messages": [{"role": "user", "content": "Hello."}], "stream": True}
    texts = []
    for word in ("miss", "hit"):
        response = await app.client.post("/v1/chat/completions", json=body, headers=app.headers())
        assert response.headers["x-cache"] == word
        events = [json.loads(e[6:]) for e in response.text.split("\n\n") if e[:7] == "data: {"]
        texts.append("".join(e["choices"][0]["delta"].get("content") or "" for e in events))
        assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert texts == [long, long]


async def test_a_hit_is_part_of_the_thread_like_any_answer(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    first, _, _ = await say_on_thread(app, "Hello.")
    word, events, names = await say_on_thread(app, "Hello.")
    assert (first, word) == ("miss", "hit")
    assert names[-2:] == ["usage", "done"]
    assert events["usage"]["cached"] is True
    assert events["done"]["content"] == "answer 1"
    thread = events["done"]["thread_id"]
    shown = (await app.client.get(f"/threads/{thread}", headers=app.headers())).json()
    assert [m["content"] for m in shown["messages"]] == ["Hello.", "answer 1"]
    word, events, _ = await say_on_thread(app, "More.", thread)
    assert (word, events["done"]["content"]) == ("miss", "answer 2")
    assert [m["content"] for m in engine.requests[-1]["messages"]] == [
        "Hello.", "answer 1", "More.",
    ]  # fmt: skip


async def test_threads_with_another_past_share_nothing(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    _, one, _ = await say_on_thread(app, "My name is Ann.")
    _, other, _ = await say_on_thread(app, "My name is Bob.")
    for said in (one, other):
        word, _, _ = await say_on_thread(app, "What is my name?", said["done"]["thread_id"])
        assert word == "miss"
    assert (await ask(app, "What is my name?"))[0] == "miss"
    assert len(engine.requests) == 5


async def test_keys_share_nothing(app: AppProcess, engine: ScriptedEngine) -> None:
    other = app.run("keys", "create", "--name", "other")
    assert await ask(app) == ("miss", "answer 1")
    assert await ask(app, key=other) == ("miss", "answer 2")
    assert await ask(app, key=other) == ("hit", "answer 2")
    assert await ask(app) == ("hit", "answer 1")


DIFFERENCES: dict[str, dict[str, Any]] = {
    "model": {"model": "twin"},
    "client's tools": {"tools": [THEIR_TOOL]},
    "history": {
        "messages": [
            {"role": "user", "content": "I am Ann."},
            {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": "Hello."},
        ]
    },
    "system message": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
        ]
    },
    "max_tokens": {"max_tokens": 7},
    "top_p": {"top_p": 0.5},
    "seed": {"seed": 1},
    "stop": {"stop": ["."]},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "response_format": {"response_format": {"type": "json_object"}},
}


async def test_each_part_of_a_request_tells_answers_apart(
    prepared: AppProcess, configuration, engine: ScriptedEngine
) -> None:
    configuration["models"]["twin"] = configuration["models"]["demo"]
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    try:
        assert await ask(app) == ("miss", "answer 1")
        for number, (part, difference) in enumerate(DIFFERENCES.items()):
            assert await ask(app, **difference) == ("miss", f"answer {number + 2}"), part
        assert await ask(app) == ("hit", "answer 1")
    finally:
        await app.end()
        await app.client.aclose()


@pytest.mark.parametrize("change", ["revision", "system prompt", "tools"])
async def test_an_answer_does_not_outlive_what_it_was_made_with(
    prepared: AppProcess, configuration, engine: ScriptedEngine, sql, change: str
) -> None:
    first = AppProcess(prepared.folder, configuration)
    first.key = prepared.key
    await first.start()
    assert await ask(first) == ("miss", "answer 1")
    await first.end()
    await first.client.aclose()
    if change == "revision":
        configuration["models"]["demo"]["revision"] = "r2"
    elif change == "system prompt":
        configuration["system_prompt"] = "Be brief."
    else:
        configuration["tools"] = {"tickets": {}}
    second = AppProcess(prepared.folder, configuration)
    second.key = prepared.key
    await second.start()
    try:
        assert await ask(second) == ("miss", "answer 2")
    finally:
        await second.end()
        await second.client.aclose()


async def test_it_outlives_a_restart(app: AppProcess, engine: ScriptedEngine) -> None:
    await ask(app)
    await app.end()
    await app.start()
    assert await ask(app) == ("hit", "answer 1")


async def test_runs_with_tools_are_neither_kept_nor_served(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    for _ in range(2):
        engine.queue = [call_tool("slots"), say("Two.")]
        word, events, _ = await say_on_thread(app, "Slots?")
        assert word == "miss"
    assert len(engine.requests) == 4
    word, _, _ = await say_on_thread(app, "Sure?", events["done"]["thread_id"])
    assert word == "bypass"
    assert 'kind="all",outcome="bypass",reason="tools"' in await metrics(app)
    engine.queue = [call_tool("Berlin", name="weather")] * 2  # the client's own tools
    assert (await ask(app, "Weather?", tools=[THEIR_TOOL]))[0] == "miss"
    assert (await ask(app, "Weather?", tools=[THEIR_TOOL]))[0] == "miss"


@pytest.mark.parametrize(
    "steps",
    [
        [chunk({"content": "too lo"}), chunk(reason="length")],
        [chunk({"content": "fil"}), chunk(reason="content_filter")],
        [chunk(reason="stop")],
    ],
)
async def test_an_answer_that_is_not_whole_is_not_kept(
    app: AppProcess, engine: ScriptedEngine, steps: list[Any]
) -> None:
    engine.queue = [steps, say("whole")]
    await ask(app)
    assert await ask(app) == ("miss", "whole")


async def test_what_was_retracted_is_not_kept(app: AppProcess, engine: ScriptedEngine) -> None:
    engine.queue = [[chunk({"content": "half an"}), ABORT], say("whole")]
    assert (await say_on_thread(app, "Hello."))[1]["done"]["content"] == "whole"
    word, events, _ = await say_on_thread(app, "Hello.")
    assert (word, events["done"]["content"]) == ("hit", "whole")


async def test_an_answer_of_a_cloud_is_not_kept_as_ours(
    prepared: AppProcess, configuration, engine: ScriptedEngine
) -> None:
    async with ScriptedCloud().serving() as cloud:
        configuration["routes"] = {
            "demo": {
                "cloud": {"name": "far", "endpoint": f"{cloud.url}/v1", "model": "m",
                          "credential": "cloud_far_key"},
                "local_seconds": 0, "cloud_budget_tokens": 9000,
            }
        }  # fmt: skip
        app = AppProcess(prepared.folder, configuration)
        (app.folder / "credentials" / "cloud_far_key").write_text(SECRET)
        app.key = prepared.key
        await app.start()
        engine.queue = [[Status(503)]]
        assert await ask(app) == ("miss", "ok")
        assert cloud.calls == 1
        await asyncio.sleep(1.1)  # the engine's ejection
        assert await ask(app) == ("miss", "answer 2")
        assert await ask(app) == ("hit", "answer 2")
        await app.end()
        await app.client.aclose()


async def test_clients_say_when_they_do_not_want_it_or_want_it_in_spite_of_sampling(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    no_store, no_cache = ({"Cache-Control": word} for word in ("no-store", "max-age=1, No-Cache"))
    assert await ask(app, headers=no_store) == ("bypass", "answer 1")
    assert await ask(app) == ("miss", "answer 2")
    assert await ask(app, headers=no_store) == ("bypass", "answer 3")
    assert await ask(app, headers=no_cache) == ("bypass", "answer 4")
    assert await ask(app) == ("hit", "answer 4")
    assert (await ask(app, "Dice?", temperature=0.7))[0] == "bypass"
    assert (await ask(app, "Dice?", temperature=0.7))[0] == "bypass"
    sampled = {"X-Cache": "sampled"}
    assert (await ask(app, "Dice?", temperature=0.7, headers=sampled))[0] == "miss"
    assert (await ask(app, "Dice?", temperature=0.7, headers=sampled))[0] == "hit"
    assert (await ask(app, "Dice?", temperature=0.8, headers=sampled))[0] == "miss"


async def test_without_redis_requests_work_and_the_header_says_bypass(
    app: AppProcess, redis_server: RedisServer, engine: ScriptedEngine
) -> None:
    await ask(app)
    redis_server.stop()
    try:
        assert await ask(app) == ("bypass", "answer 2")
        assert await ask(app) == ("bypass", "answer 3")
        assert 'kind="all",outcome="bypass",reason="redis"' in await metrics(app)
    finally:
        redis_server.start()
    await asyncio.sleep(1.1)
    assert await ask(app) == ("miss", "answer 4")  # it may lose everything


async def test_a_resumed_run_is_not_answered_from_it(
    prepared: AppProcess, configuration, engine: ScriptedEngine
) -> None:
    configuration["limits"]["engine_wait_seconds"] = 0
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    engine.queue = [[Status(503)]]
    word, events, names = await say_on_thread(app, "Hello.")
    assert names == ["error"]
    word, events, _ = await say_on_thread(app, "Hello.", events["error"]["thread_id"])
    assert (word, events["done"]["resumed"]) == ("bypass", True)
    await app.end()
    await app.client.aclose()


async def test_a_forgotten_keys_answers_are_unreachable_and_deleted(
    app: AppProcess, configuration, redis_server: RedisServer, sql, engine: ScriptedEngine
) -> None:
    from agent_app.config import Config
    from agent_app.state.database import make_pool
    from agent_app.state.responses import forget

    other = app.run("keys", "create", "--name", "other")
    await ask(app, "One.")
    await ask(app, "Two.")
    await ask(app, "One.", key=other)
    (key_id,) = sql.execute("SELECT id FROM app.api_keys WHERE name = 'test'").fetchone()
    client = redis.Redis(port=redis_server.port, db=0, password=PASSWORD)
    pool = make_pool(Config.model_validate(configuration).database, PASSWORD)
    await pool.open()
    done = await forget(pool, client, UUID(str(key_id)))
    assert (done.generation, done.deleted) == (1, 2)
    assert [name async for name in client.scan_iter(f"cache:{key_id}:*")] == []
    assert await ask(app, "One.", key=other) == ("hit", "answer 3")
    # A write under the old generation, by a process that does not know yet, stays out of reach.
    await ask(app, "One.")
    await asyncio.sleep(5.1)
    assert (await ask(app, "One."))[0] == "miss"
    unreachable = redis.Redis(port=free_port(), password=PASSWORD)
    assert (await forget(pool, unreachable, UUID(str(key_id)))).deleted is None
    for closing in (client, unreachable):
        await closing.aclose()
    await pool.close()


async def test_it_is_off_by_default_and_says_nothing(
    prepared: AppProcess, configuration, engine: ScriptedEngine
) -> None:
    del configuration["cache"]
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    for _ in range(2):
        response = await app.client.post(
            "/chat", json={"message": "Hello.", "stream": False}, headers=app.headers()
        )
        assert "x-cache" not in response.headers
    assert len(engine.requests) == 2
    await app.end()
    await app.client.aclose()


def test_a_model_without_a_revision_cannot_be_cached(prepared: AppProcess, configuration) -> None:
    configuration["models"]["demo"]["revision"] = ""
    done = AppProcess(prepared.folder, configuration).complete("check")
    assert done.returncode == 2
    assert "cache needs models.demo.revision" in done.stderr
