"""The real `openai` client against the app: what it sends, hears and raises."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from app_process import AppProcess
from openai import AsyncOpenAI
from scripted_engine import ABORT, CUT, Hold, ScriptedEngine, Status, call_tool, chunk, respond, say

HELLO: list[Any] = [{"role": "user", "content": "Hello."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}
USED = "SELECT requests, prompt_tokens, completion_tokens FROM app.usage"


@pytest.fixture
async def client(app: AppProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{app.url}/v1", api_key=app.key, max_retries=0) as client:
        yield client


async def test_a_completion_and_its_usage(client: AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.queue = [say("Good ", "day.")]
    answer = await client.chat.completions.create(model="demo", messages=HELLO)
    assert answer.choices[0].message.content == "Good day."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 15


async def test_a_stream_with_usage(client: AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.queue = [say("Good ", "day.")]
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    words = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert words == ["Good ", "day."]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 15


async def test_the_clients_tools_come_back_as_calls_and_their_results_go_in(
    client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.queue = [call_tool("Berlin", name="weather"), say("Rain.")]
    first = await client.chat.completions.create(model="demo", messages=HELLO, tools=[WEATHER])
    message = first.choices[0].message
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert first.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert call.function.arguments == '{"query": "Berlin"}'
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    asked = [*HELLO, message.model_dump(exclude_none=True), result]
    second = await client.chat.completions.create(model="demo", messages=asked, tools=[WEATHER])
    assert second.choices[0].message.content == "Rain."
    roles = [message["role"] for message in engine.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "tool"]


async def test_streamed_tool_calls_are_put_together_by_the_client(
    client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.queue = [call_tool("Berlin", name="weather")]
    async with client.chat.completions.stream(
        model="demo", messages=HELLO, tools=[WEATHER]
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.name == "weather"


async def test_models(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["demo"]


async def test_each_error_is_the_clients_own_class_with_our_code(
    app: AppProcess, client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    async def ask(client: AsyncOpenAI = client, **more: Any) -> Any:
        return await client.chat.completions.create(**{"model": "demo", "messages": HELLO, **more})

    with pytest.raises(openai.AuthenticationError) as unknown:
        await ask(client.with_options(api_key="rh_wrong"))
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as wrong:
        await ask(model="none")
    assert wrong.value.code == "invalid_request"
    engine.queue = [[Status(400)]]
    with pytest.raises(openai.BadRequestError) as refused:
        await ask()
    assert refused.value.code == "engine_refused"
    admin = app.run("keys", "create", "--name", "boss", "--scope", "admin")
    with pytest.raises(openai.PermissionDeniedError):
        await ask(client.with_options(api_key=admin))
    one = app.run("keys", "create", "--name", "one", "--limit", "requests_per_minute=1")
    await ask(client.with_options(api_key=one))
    with pytest.raises(openai.RateLimitError) as limited:
        await ask(client.with_options(api_key=one))
    assert limited.value.code == "rate_limit_exceeded"
    assert int(limited.value.response.headers["retry-after"]) > 0


async def test_the_clients_retries_are_told_when_and_when_not(
    app: AppProcess, client: AsyncOpenAI
) -> None:
    spent = app.run("keys", "create", "--name", "spent", "--limit", "budget_hard=1")
    quick = app.run("keys", "create", "--name", "quick", "--limit", "requests_per_minute=60")
    one = client.with_options(api_key=spent, max_retries=2)
    await one.chat.completions.create(model="demo", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refused:
        await one.chat.completions.create(model="demo", messages=HELLO)
    assert refused.value.code == "insufficient_quota"
    async with asyncio.timeout(10):
        while '"status": 429' not in app.log():  # it is written after the answer
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    assert app.log().count('"status": 429') == 1  # x-should-retry: false is honoured
    answers = await asyncio.gather(
        *(
            client.with_options(api_key=quick, max_retries=3).chat.completions.create(
                model="demo", messages=HELLO
            )
            for _ in range(61)
        )
    )
    assert len(answers) == 61  # one was refused, and came back when Retry-After said


async def test_an_engine_that_fails_in_mid_stream_is_an_error_of_the_client(
    client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.queue = [[chunk({"content": "half"}), ABORT], [Status(400)]]
    with pytest.raises(openai.APIError, match="no engine could finish"):
        async for _ in await client.chat.completions.create(
            model="demo", messages=HELLO, stream=True
        ):
            pass


# ---- /v1/responses -------------------------------------------------------------------------------


async def test_a_response_is_passed_through_bounded_and_counted(
    client: AsyncOpenAI, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [respond("Good ", "day.")]
    answer = await client.responses.create(
        model="demo", input="Hello.", max_output_tokens=999_999, store=True, user="ada"
    )
    assert answer.output_text == "Good day."
    assert answer.usage is not None
    assert answer.usage.total_tokens == 22
    request = engine.requests[0]
    assert request["max_output_tokens"] == 1024
    assert request["store"] is False
    assert "user" not in request
    assert sql.execute(USED).fetchall() == [(1, 20, 2)]
    assert sql.execute("SELECT count(*) FROM app.threads").fetchone() == (0,)


async def test_a_response_streams(client: AsyncOpenAI, engine: ScriptedEngine, sql) -> None:
    hold = Hold()
    steps = respond("Good ", "day.")
    engine.queue = [[*steps[:2], hold, *steps[2:]]]
    stream = await client.responses.create(model="demo", input="Hello.", stream=True)
    kinds = []
    async for event in stream:
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            hold.release.set()  # the first word did not wait for the second
    delta = "response.output_text.delta"
    assert kinds == ["response.created", delta, delta, "response.completed"]
    assert sql.execute(USED).fetchall() == [(1, 20, 2)]


async def test_a_response_cut_by_its_bound_is_incomplete(
    client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.queue = [respond("Good ", end="incomplete")]
    assert (await client.responses.create(model="demo", input="Hello.")).status == "incomplete"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_a_response_spends_what_came(
    client: AsyncOpenAI, engine: ScriptedEngine, sql, stream: bool
) -> None:
    hold = Hold()
    engine.queue = [[*respond("Good ", "day.")[:3], hold]]

    async def ask() -> None:
        answer: Any = await client.responses.create(model="demo", input="x" * 300, stream=stream)
        async for _ in answer:
            pass

    asking = asyncio.create_task(ask())
    await hold.reached.wait()
    await asyncio.sleep(0.2)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await engine.idle(1)
    async with asyncio.timeout(5):
        while not (found := sql.execute(USED).fetchall()):
            await asyncio.sleep(0.05)
    ((requests, prompt, made),) = found
    assert (requests, made) == (1, 2)
    assert 100 < prompt < 150  # by estimate


async def test_an_engine_without_responses_is_said_so(
    client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.queue = [[Status(404)]]
    with pytest.raises(openai.NotFoundError, match="use /v1/chat/completions") as refused:
        await client.responses.create(model="demo", input="Hello.")
    assert refused.value.code == "not_offered"


async def test_another_engine_is_tried_until_one_takes_the_response_on(
    client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.queue = [[Status(503)], respond("fine")]
    assert (await client.responses.create(model="demo", input="Hello.")).output_text == "fine"


@pytest.mark.parametrize("steps", [[CUT], [{"type": "error", "message": "secret"}], []])
async def test_a_response_that_breaks_off_is_an_error_without_the_engines_words(
    client: AsyncOpenAI, engine: ScriptedEngine, steps: list[Any]
) -> None:
    engine.queue = [[*respond("Good ", "day.")[:2], *steps]] * 2
    with pytest.raises(openai.InternalServerError) as failed:
        await client.responses.create(model="demo", input="Hello.")
    assert failed.value.code == "engine_unavailable"
    stream: Any = await client.responses.create(model="demo", input="Hi.", stream=True)
    heard = [event async for event in stream]
    kinds = [event.type for event in heard]
    assert kinds == ["response.created", "response.output_text.delta", "error"]
    assert heard[-1].code == "engine_unavailable"
    assert "secret" not in heard[-1].message + str(failed.value)


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1/"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"max_output_tokens": 0},
    ],
)
async def test_what_cannot_be_bounded_or_would_be_stored_is_refused(
    client: AsyncOpenAI, engine: ScriptedEngine, more: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(**{"model": "demo", "input": "Hello.", **more})
    assert engine.requests == []


async def test_responses_obey_the_limits_of_their_key(
    app: AppProcess, client: AsyncOpenAI, engine: ScriptedEngine
) -> None:
    key = app.run("keys", "create", "--name", "one", "--limit", "requests_per_minute=1")
    one = client.with_options(api_key=key)
    await one.responses.create(model="demo", input="Hello.")
    with pytest.raises(openai.RateLimitError):
        await one.responses.create(model="demo", input="Hello.")
