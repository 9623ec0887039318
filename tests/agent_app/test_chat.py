import asyncio
import json

import pytest
from app_process import AppProcess
from scripted_engine import Hold, ScriptedEngine, call_tool, chunk, say


async def test_tokens_arrive_in_order_then_usage_then_done(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [say("One ", "two ", "three.")]
    heard = await app.chat("Count.")
    assert heard.names() == ["token", "token", "token", "usage", "done"]
    assert heard.text() == "One two three."
    done = heard.of("done")[0]
    assert done["content"] == "One two three."
    assert done["finish_reason"] == "stop"
    assert done["thread_id"] == heard.thread_id
    assert heard.of("usage") == [{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}]
    assert len(set(heard.ids)) == len(heard.events)


async def test_the_first_token_does_not_wait_for_the_last(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "first"}), hold, *say("last")]]
    async with app.streaming({"message": "Go."}) as (heard, events):
        assert await anext(events) == "token"
        assert heard.text() == "first"
        hold.release.set()
        assert [name async for name in events] == ["token", "usage", "done"]


async def test_a_tool_turn_searches_and_answers(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [call_tool("engine proxy port"), say("It is 8000.")]
    heard = await app.chat("Which port?")
    assert heard.names() == ["tool", "tool", "token", "usage", "done"]
    start, end = heard.of("tool")
    assert (start["phase"], start["name"]) == ("start", "search_knowledge")
    assert json.loads(start["arguments"]) == {"query": "engine proxy port"}
    assert end["ok"]
    assert end["result"] == "[1] Ports: The engine proxy listens on port 8000."
    (source,) = end["sources"]
    assert (source["number"], source["title"], source["path"]) == (1, "Ports", "ports.md")
    assert heard.of("usage")[0]["total_tokens"] == 30
    roles = [message["role"] for message in engine.requests[1]["messages"]]
    assert roles == ["user", "assistant", "tool"]
    assert set(engine.requests[1]["messages"][2]) == {"role", "tool_call_id", "content"}
    assert engine.requests[1]["messages"][1]["tool_calls"][0]["id"] == start["id"]
    assert sql.execute("SELECT tool_call_id, result, sources FROM app.tool_effects").fetchall() == [
        (start["id"], end["result"], end["sources"])
    ]


async def test_a_thread_remembers_and_belongs_to_its_key(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    first = await app.chat("I am Ada.")
    await app.chat("Who am I?", thread_id=first.thread_id)
    texts = [message["content"] for message in engine.requests[1]["messages"]]
    assert texts == ["I am Ada.", "ok", "Who am I?"]
    app.key = app.run("keys", "create", "--name", "other")
    response = await app.client.post(
        "/chat",
        json={"thread_id": first.thread_id, "message": "Who was that?"},
        headers=app.headers(),
    )
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_without_stream_the_answer_is_one_json_document(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [call_tool("slots"), say("Blue ", "and green.")]
    response = await app.client.post(
        "/chat", json={"message": "Slots?", "stream": False}, headers=app.headers()
    )
    body = response.json()
    assert body["message"]["content"] == "Blue and green."
    assert body["tools"][0]["name"] == "search_knowledge"
    assert body["usage"]["total_tokens"] == 30


async def test_the_correlation_id_reaches_the_engine_the_log_and_the_table(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [call_tool("slots"), say("Two.")]
    headers = {**app.headers(), "X-Request-ID": "edge-0123456789"}
    response = await app.client.post("/chat", json={"message": "Slots?"}, headers=headers)
    assert response.headers["x-request-id"] == "edge-0123456789"
    assert engine.request_ids == ["edge-0123456789.1", "edge-0123456789.2"]
    assert sql.execute("SELECT correlation_id FROM app.runs").fetchall() == [("edge-0123456789",)]
    async with asyncio.timeout(5):  # the request's line is written after its last byte
        while not any(
            json.loads(line).get("request_id") == "edge-0123456789"
            for line in app.log().splitlines()
        ):
            await asyncio.sleep(0.02)
    bad = await app.client.get("/health", headers={"X-Request-ID": "a b"})
    assert bad.headers["x-request-id"] != "a b"


async def test_the_answer_is_always_bounded_and_our_tool_is_offered(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    await app.chat("Hello.")
    request = engine.requests[0]
    assert request["max_tokens"] == 1024
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert request["stream_options"] == options
    assert [tool["function"]["name"] for tool in request["tools"]] == ["search_knowledge"]


async def test_finished_threads_keep_one_checkpoint(app: AppProcess, sql) -> None:
    heard = await app.chat("One.")
    await app.chat("Two.", thread_id=heard.thread_id)
    await app.chat("Three.", thread_id=heard.thread_id)
    count = sql.execute("SELECT count(*) FROM checkpoints.checkpoints").fetchone()[0]
    assert count <= 1 + 5  # the last prune may still be under way


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"message": ""}, 400),
        ({"message": "x", "resume": True}, 400),
        ({"message": "x", "surprise": 1}, 400),
        ({"message": "x", "model": "none"}, 400),
        ({"message": "x" * 1_000_001}, 413),
        ({"resume": True, "thread_id": "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e"}, 404),
    ],
)
async def test_wrong_requests_are_refused_in_one_shape(
    app: AppProcess, body: dict[str, object], status: int
) -> None:
    response = await app.client.post("/chat", json=body, headers=app.headers())
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"]


async def test_a_search_where_no_document_has_all_the_words_finds_those_with_some(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [call_tool("proxy unheard of"), say("It is 8000.")]
    end = (await app.chat("Which port?")).of("tool")[1]
    assert end["ok"]
    assert end["result"] == "[1] Ports: The engine proxy listens on port 8000."
