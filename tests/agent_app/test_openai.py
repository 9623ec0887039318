import json
from typing import Any

from app_process import AppProcess
from scripted_engine import ScriptedEngine, Status, call_tool, say

HELLO = [{"role": "user", "content": "Hello."}]
THEIR_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


async def stream(app: AppProcess, **body: Any) -> list[Any]:
    events = []
    async with app.client.stream(
        "POST",
        "/v1/chat/completions",
        json={"messages": HELLO, "stream": True, **body},
        headers=app.headers(),
    ) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                events.append(line[6:] if line == "data: [DONE]" else json.loads(line[6:]))
    return events


async def ask(app: AppProcess, **body: Any) -> Any:
    response = await app.client.post(
        "/v1/chat/completions", json={"messages": HELLO, **body}, headers=app.headers()
    )
    assert response.status_code == 200, response.text
    return response.json()


async def test_chunks_have_openais_shape(app: AppProcess, engine: ScriptedEngine) -> None:
    engine.queue = [say("Good ", "day.")]
    events = await stream(app, stream_options={"include_usage": True})
    deltas = [event["choices"][0]["delta"] for event in events[:-2]]
    assert deltas == [
        {"role": "assistant", "content": ""}, {"content": "Good "}, {"content": "day."}, {},
    ]  # fmt: skip
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert events[-2]["usage"]["total_tokens"] == 15
    assert events[-1] == "[DONE]"
    assert {event["object"] for event in events[:-1]} == {"chat.completion.chunk"}


async def test_our_tools_work_unseen(app: AppProcess, engine: ScriptedEngine, sql) -> None:
    engine.queue = [call_tool("slots"), say("Two.")]
    body = await ask(app)
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Two."}
    assert body["usage"]["total_tokens"] == 30
    assert sql.execute("SELECT count(*) FROM app.tool_effects").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM app.threads").fetchone() == (0,)


async def test_the_clients_tools_pass_through_and_ours_stay_out(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [call_tool("Berlin", name="weather"), call_tool("Berlin", name="weather")]
    body = await ask(app, tools=[THEIR_TOOL])
    call = body["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "weather", "arguments": '{"query": "Berlin"}'}
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert engine.requests[0]["tools"] == [THEIR_TOOL]
    events = await stream(app, tools=[THEIR_TOOL])
    calls = [e["choices"][0]["delta"].get("tool_calls") for e in events if e != "[DONE]"]
    assert calls[1][0]["function"]["name"] == "weather"


async def test_a_thread_can_be_named(app: AppProcess, engine: ScriptedEngine) -> None:
    thread = (await app.chat("I am Ada.")).thread_id
    await ask(app, metadata={"thread_id": thread})
    texts = [message["content"] for message in engine.requests[-1]["messages"]]
    assert texts == ["I am Ada.", "ok", "Hello."]


async def test_sampling_parameters_travel_and_max_tokens_is_capped(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    await ask(app, temperature=0.5, seed=7, max_tokens=999_999, user="ignored")
    request = engine.requests[0]
    assert (request["temperature"], request["seed"], request["max_tokens"]) == (0.5, 7, 1024)
    assert "user" not in request


async def test_an_early_failure_has_a_status_of_its_own(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [[Status(400)]]
    response = await app.client.post(
        "/v1/chat/completions",
        json={"messages": HELLO, "stream": True},
        headers=app.headers(),
    )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert "secret" not in response.text


async def test_models_are_listed(app: AppProcess) -> None:
    response = await app.client.get("/v1/models", headers=app.headers())
    assert [model["id"] for model in response.json()["data"]] == ["demo"]
