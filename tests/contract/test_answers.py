"""What a client gets from an engine: the same from the stand-in as from real vLLM."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml

from ops.lab import demo_model
from tests.contract.engines import CONTEXT, Engine, events

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]
SEARCHED = [{"role": "user", "content": "What is Rackhand?"}]
SEARCH = {
    "type": "function",
    "function": {
        "name": "search_knowledge",
        "description": "Search the knowledge base.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
    },
}
DIALOGUES = {d["name"]: d for d in yaml.safe_load(demo_model.DIALOGUES.read_text())["dialogues"]}


def asked(messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": messages, **more}


async def ask(engine: Engine, body: dict[str, Any], path: str = CHAT) -> dict[str, Any]:
    async with engine.client() as client:
        response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def stream(
    engine: Engine,
    body: dict[str, Any],
    path: str = CHAT,
    begun: asyncio.Event | None = None,
) -> list[dict[str, Any]]:
    async with (
        engine.client() as client,
        client.stream("POST", path, json={**body, "stream": True}) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return await events(response, begun)


async def test_it_names_its_model_and_its_version(engine: Engine) -> None:
    async with engine.client() as client:
        models = (await client.get("/v1/models")).json()["data"]
        version = (await client.get("/version")).json()["version"]
        health = await client.get("/health")
    assert [(m["id"], m["max_model_len"]) for m in models] == [("demo", CONTEXT)]
    assert version.startswith("0.32.0")
    assert (health.status_code, health.content) == (200, b"")


async def test_an_answer_has_the_fields_of_vllm(engine: Engine) -> None:
    answer = await ask(engine, asked(HELLO))
    choice, usage = answer["choices"][0], answer["usage"]
    assert choice["message"]["content"] == DIALOGUES["hello"]["answer"]
    assert choice["finish_reason"] == "stop"
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert set(answer) == {
        *("id", "object", "created", "model", "choices", "usage", "service_tier", "metrics"),
        *("system_fingerprint", "prompt_logprobs", "prompt_token_ids", "prompt_text"),
        *("kv_transfer_params", "ec_transfer_params"),
    }
    assert set(choice) == {
        *("index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids"),
        "routed_experts",
    }


async def test_the_request_id_comes_back_and_names_the_answer(engine: Engine) -> None:
    async with engine.client() as client:
        response = await client.post(
            CHAT, json=asked(HELLO, max_tokens=1), headers={"X-Request-Id": "abc.1"}
        )
    assert response.headers["x-request-id"] == "abc.1"
    assert response.json()["id"] == "chatcmpl-abc.1"


async def test_a_stream_is_role_then_tokens_then_end(engine: Engine) -> None:
    chunks = await stream(engine, asked(HELLO))
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert chunks[-1] == {"done": True}
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text == DIALOGUES["hello"]["answer"]
    assert [c["finish_reason"] for c in choices[:-1]] == [None] * (len(choices) - 1)
    assert (choices[-1]["finish_reason"], choices[-1]["stop_reason"]) == ("stop", None)
    assert not any("usage" in chunk for chunk in chunks)


async def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(engine: Engine) -> None:
    body = asked(HELLO, max_tokens=3, stream_options={"include_usage": True})
    *chunks, usage, done = await stream(engine, body)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert done == {"done": True}


async def test_max_tokens_is_kept_to_the_token(engine: Engine) -> None:
    answer = await ask(engine, asked(HELLO, max_tokens=40, ignore_eos=True))
    assert answer["usage"]["completion_tokens"] == 40
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_a_stop_text_ends_the_answer_and_is_named(engine: Engine) -> None:
    choice = (await ask(engine, asked(HELLO, stop=["learned"])))["choices"][0]
    assert choice["message"]["content"] == DIALOGUES["hello"]["answer"].split("learned")[0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "learned")


@pytest.mark.parametrize("words", [1, 4, 9])
async def test_it_goes_on_with_an_answer_that_was_begun(engine: Engine, words: int) -> None:
    whole = DIALOGUES["hello"]["answer"]
    begun = " ".join(whole.split(" ")[:words])
    conversation = [*HELLO, {"role": "assistant", "content": begun}]
    on = {"continue_final_message": True, "add_generation_prompt": False}
    *chunks, done = await stream(engine, asked(conversation, tools=[SEARCH], **on))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert begun + "".join(c["delta"].get("content") or "" for c in choices) == whole
    assert (choices[-1]["finish_reason"], done) == ("stop", {"done": True})


async def test_a_tool_is_called(engine: Engine) -> None:
    choice = (await ask(engine, asked(SEARCHED, tools=[SEARCH])))["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert (call["type"], call["function"]["name"]) == ("function", "search_knowledge")
    wanted = {"query": DIALOGUES["what-is-rackhand"]["search"]}
    assert json.loads(call["function"]["arguments"]) == wanted


async def test_a_streamed_tool_call_comes_as_its_name_then_its_arguments(engine: Engine) -> None:
    *chunks, done = await stream(engine, asked(SEARCHED, tools=[SEARCH]))
    choices = [chunk["choices"][0] for chunk in chunks]
    calls = [c["delta"]["tool_calls"][0] for c in choices if c["delta"].get("tool_calls")]
    assert done == {"done": True}
    assert set(calls[0]) == {"id", "type", "index", "function"}
    assert calls[0]["function"] == {"name": "search_knowledge"}
    assert all(set(call) == {"index", "function"} for call in calls[1:])
    arguments = "".join(call["function"]["arguments"] for call in calls[1:])
    assert json.loads(arguments) == {"query": DIALOGUES["what-is-rackhand"]["search"]}
    assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "tool_calls")


async def test_it_answers_from_a_tools_result(engine: Engine) -> None:
    call = {"id": "c1", "type": "function"}
    function = {"name": "search_knowledge", "arguments": '{"query": "what rackhand is"}'}
    conversation = [
        *SEARCHED,
        {"role": "assistant", "content": None, "tool_calls": [{**call, "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": "[1] What Rackhand is: One playbook."},
    ]
    choice = (await ask(engine, asked(conversation, tools=[SEARCH])))["choices"][0]
    assert choice["message"]["content"] == DIALOGUES["what-is-rackhand"]["answer"]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("choice", "finish"),
    [
        ("none", "stop"),
        ("required", "tool_calls"),
        ({"type": "function", "function": {"name": "search_knowledge"}}, "stop"),
    ],
    ids=["none", "required", "named"],
)
async def test_tool_choice_is_obeyed(engine: Engine, choice: Any, finish: str) -> None:
    body = asked(HELLO, tools=[SEARCH], tool_choice=choice, max_tokens=100)
    answer = (await ask(engine, body))["choices"][0]
    calls = answer["message"].get("tool_calls") or []
    assert [call["function"]["name"] for call in calls] == (
        [] if choice == "none" else ["search_knowledge"]
    )
    assert answer["finish_reason"] == finish


async def test_plain_completions(engine: Engine) -> None:
    answer = await ask(engine, {"model": "demo", "prompt": ["Hello", "Hi"], "max_tokens": 3}, TEXT)
    assert answer["object"] == "text_completion"
    assert [(c["index"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "length"),
        (1, "length"),
    ]
    assert answer["usage"]["completion_tokens"] == 6


async def test_plain_completions_stream(engine: Engine) -> None:
    body = {"model": "demo", "prompt": "Hello", "max_tokens": 3}
    *chunks, done = await stream(engine, body, TEXT)
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert finishes == [*[None] * (len(chunks) - 1), "length"]  # a chunk may hold several tokens
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert done == {"done": True}


BAD = {
    "unknown model": ({**asked(HELLO), "model": "other"}, 404, "NotFoundError", "model"),
    "no messages": ({"model": "demo"}, 400, "Bad Request", "body.messages"),
    "empty messages": (asked([]), 400, "BadRequestError", None),
    "messages no list": (asked("x"), 400, "Bad Request", "body.messages"),  # type: ignore[arg-type]
    "wrong type": (asked(HELLO, temperature="hot"), 400, "Bad Request", "body.temperature"),
    "wrong value": (asked(HELLO, temperature=-1), 400, "BadRequestError", "temperature"),
    "no tokens": (asked(HELLO, max_tokens=0), 400, "BadRequestError", "max_tokens"),
    "too many tokens": (asked(HELLO, max_tokens=99999), 400, "BadRequestError", "max_tokens"),
    "two answers": (asked(HELLO, n=2, max_tokens=2), 400, "BadRequestError", None),
    "too many logprobs": (
        asked(HELLO, logprobs=True, top_logprobs=200, max_tokens=1),
        *(400, "BadRequestError", "logprobs"),
    ),
    "an answer begun and to begin": (
        asked(HELLO, continue_final_message=True),
        *(400, "BadRequestError", None),
    ),
    "stray stream options": (
        asked(HELLO, stream_options={"include_usage": True}),
        *(400, "BadRequestError", "stream_options"),
    ),
    "too long a prompt": (
        asked([{"role": "user", "content": "word " * 9000}]),
        *(400, "BadRequestError", "input_tokens"),
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_request_gets_vllms_error_object(engine: Engine, case: str) -> None:
    body, status, kind, param = BAD[case]
    async with engine.client() as client:
        response = await client.post(CHAT, json=body)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (response.status_code, error["code"]) == (status, status)
    assert (error["type"], error["param"]) == (kind, param), error["message"]


async def test_a_body_that_is_not_json_is_refused(engine: Engine) -> None:
    async with engine.client() as client:
        response = await client.post(
            CHAT, content=b"{nonsense", headers={"content-type": "application/json"}
        )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "Bad Request"


async def test_what_does_not_exist_is_not_found(engine: Engine) -> None:
    async with engine.client() as client:
        missing, wrong = await client.get("/nothing"), await client.get(CHAT)
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
