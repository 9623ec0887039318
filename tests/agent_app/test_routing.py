"""Local engines and a cloud, each a scripted engine; the cloud counts every call it gets."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from app_process import AppProcess
from audited import sealed
from scripted_cloud import SECRET, ScriptedCloud
from scripted_engine import CUT, USAGE, Hold, ScriptedEngine, Status, call_tool, chunk, say

from tests.ports import free_port

HELLO = [{"role": "user", "content": "Hello."}]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"ports": {"type": "array", "items": {"type": "integer"}}},
            "required": ["ports"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
async def cloud() -> AsyncIterator[ScriptedCloud]:
    cloud = ScriptedCloud()
    cloud.default = lambda _body: say("from ", "the cloud")
    async with cloud.serving():
        yield cloud


@pytest.fixture
def policy(cloud: ScriptedCloud) -> dict[str, Any]:
    """The route of `demo`, which a test may change before it starts the app."""
    return {
        "cloud": {
            "name": "far",
            "endpoint": f"{cloud.url}/v1",
            "model": "far-large",
            "credential": "cloud_far_key",
            "headers": {"X-Project": "rackhand"},
            "price_per_million_prompt": 2.0,
            "price_per_million_completion": 8.0,
            "breaker_failures": 2,
            "breaker_seconds": 1.5,
        },
        "local_seconds": 0.5,
        "escalate_on": ["empty", "arguments", "schema", "repeated_calls"],
        "cloud_budget_tokens": 100_000,
    }


@contextlib.asynccontextmanager
async def running(
    prepared: AppProcess, configuration: dict[str, Any], policy: dict[str, Any]
) -> AsyncIterator[AppProcess]:
    configuration["routes"] = {"demo": policy}
    app = AppProcess(prepared.folder, configuration)
    (app.folder / "credentials" / "cloud_far_key").write_text(f"{SECRET}\n")
    app.key = prepared.key
    await app.start()
    try:
        yield app
    finally:
        await app.end()
        await app.client.aclose()
        assert SECRET not in app.log()


async def audit(app: AppProcess, kind: str = "route.choose") -> list[dict[str, Any]]:
    """What the audit has of a kind, its details beside the rest."""
    return [
        {**entry, **entry["opened"], **entry["opened"]["details"]}
        for entry in await sealed(app, kind)
    ]


async def complete(app: AppProcess, key: str = "", **body: Any) -> httpx2.Response:
    return await app.client.post(
        "/v1/chat/completions",
        json={"messages": HELLO, **body},
        headers={"Authorization": f"Bearer {key or app.key}"},
    )


async def metrics(app: AppProcess) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text


def usage(sql: Any) -> dict[str, tuple[int, int, int]]:
    rows = sql.execute(
        "SELECT model, sum(requests)::int, sum(prompt_tokens)::int, sum(completion_tokens)::int"
        " FROM app.usage GROUP BY model"
    )
    return {model: tuple(figures) for model, *figures in rows}


async def test_with_our_engines_down_the_cloud_answers_and_the_audit_says_so(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, sql
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    async with running(prepared, configuration, policy) as app:
        heard = await app.chat("Hello.")
        assert heard.text() == "from the cloud"
        assert heard.names() == ["token", "token", "usage", "done"]
        assert heard.of("usage")[0]["total_tokens"] == 15
        [entry] = await audit(app)
        assert (entry["from"], entry["to"], entry["why"], entry["model"]) == (
            "demo", "cloud:far", "unavailable", "far-large",
        )  # fmt: skip
        assert entry["cost"] > 0
        assert (entry["thread_id"], entry["correlation"] != "") == (heard.thread_id, True)
        [after] = await audit(app, "route.answer")
        assert (after["outcome"], after["prompt_tokens"], after["cost"]) == ("answered", 10, 6e-05)
        # Tokens under the name of who answered; the run counts once, under its own model.
        assert usage(sql) == {"demo": (1, 0, 0), "cloud:far": (0, 10, 5)}
        assert sql.execute("SELECT tokens FROM app.threads").fetchone() == (15,)
        page = await metrics(app)
        assert 'why="unavailable"' in page and 'to="cloud:far"' in page
        assert 'agent_app_tokens_total{kind="completion",model="cloud:far"} 5.0' in page


async def test_only_messages_tools_and_openais_parameters_cross(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    configuration["system_prompt"] = "Be brief."
    async with running(prepared, configuration, policy) as app:
        answer = await app.client.post(
            "/v1/chat/completions",
            json={"messages": HELLO, "temperature": 0.5, "top_k": 3, "priority": 7, "user": "Ann"},
            headers={**app.headers(), "X-Request-ID": "correlated-1", "X-Feature": "secret-plan"},
        )
        assert answer.status_code == 200, answer.text
    [crossed] = cloud.crossed
    assert set(crossed["body"]) == {
        "messages", "tools", "temperature", "max_tokens", "model", "stream", "stream_options",
    }  # fmt: skip
    assert crossed["body"]["messages"] == [{"role": "system", "content": "Be brief."}, *HELLO]
    assert crossed["body"]["model"] == "far-large"
    assert crossed["headers"]["x-request-id"].startswith("correlated-1.")
    assert crossed["headers"]["x-project"] == "rackhand"
    everything = cloud.all_that_crossed()
    for ours in (app.key, "rh_", "secret-plan", "Ann", "key_id"):
        assert ours not in everything


async def test_a_resident_key_gets_a_clear_503_and_the_cloud_is_never_asked(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    configuration["limits"]["engine_wait_seconds"] = 0.5
    async with running(prepared, configuration, policy) as app:
        key = app.run("keys", "create", "--name", "ward", "--resident")
        refused = await complete(app, key)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert "stays on our hosts" in refused.json()["error"]["message"]
        app.key = key
        heard = await app.chat("Hello.")
        assert heard.names() == ["error"]
        assert "stays on our hosts" in heard.of("error")[0]["message"]
        assert cloud.calls == 0
        entries = await audit(app)
        assert {(e["to"], e["barred_by"]) for e in entries} == {("none", "resident")}
        listed = json.loads(app.run("keys", "list", "--json"))
        assert {k["name"]: k["resident"] for k in listed} == {"test": False, "ward": True}
        assert "resident" in app.run("keys", "list")


async def test_a_thread_that_a_resident_key_began_stays_here_whatever_becomes_of_the_key(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine, sql
) -> None:
    configuration["limits"]["engine_wait_seconds"] = 0.5
    async with running(prepared, configuration, policy) as app:
        app.key = app.run("keys", "create", "--name", "ward", "--resident")
        thread = (await app.chat("Hello.")).thread_id
        sql.execute("UPDATE app.api_keys SET resident = false")
        await asyncio.sleep(5.1)  # what processes know of a key
        engine.default = lambda _body: [Status(503)]
        heard = await app.chat("And now?", thread_id=thread)
        assert "stays on our hosts" in heard.of("error")[0]["message"]
        assert cloud.calls == 0
        assert (await app.chat("A new thread.")).text() == "from the cloud"


async def test_without_a_route_no_cloud_is_asked(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["other"] = {"endpoints": [f"http://127.0.0.1:{free_port()}"]}
    configuration["limits"]["engine_wait_seconds"] = 0.3
    async with running(prepared, configuration, policy) as app:
        refused = await complete(app, model="other")
        assert (refused.status_code, cloud.calls) == (503, 0)


async def test_an_answer_cut_in_mid_stream_is_retracted_for_the_clouds(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine
) -> None:
    configuration["limits"]["retractions"] = 0
    async with running(prepared, configuration, policy) as app:
        engine.queue = [[chunk({"content": "half an"}), CUT]]
        heard = await app.chat("Hello.")
        assert heard.names() == ["token", "retract", "token", "token", "usage", "done"]
        assert heard.text() == "from the cloud"
        await asyncio.sleep(1.1)  # our engine was put aside for a second
        again = await app.chat("Say that again.", thread_id=heard.thread_id)
        assert again.text() == "ok"
        roles = [(m["role"], m["content"]) for m in engine.requests[-1]["messages"]]
        assert roles == [
            ("user", "Hello."), ("assistant", "from the cloud"), ("user", "Say that again."),
        ]  # fmt: skip


FAULTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "empty": ([chunk(reason="stop"), USAGE], {}),
    "arguments": (
        [
            chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a": '}}]}),
            chunk(reason="tool_calls"),
        ],
        {},
    ),
    "schema": (say('{"ports": ["eighty"]}'), {"response_format": SCHEMA}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bad_answer_is_escalated_once(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine,
    fault: str,
) -> None:  # fmt: skip
    steps, options = FAULTS[fault]
    cloud.default = lambda _body: say('{"ports": [80]}')
    async with running(prepared, configuration, policy) as app:
        engine.queue = [steps]
        answer = await complete(app, **options)
        assert answer.json()["choices"][0]["message"]["content"] == '{"ports": [80]}'
        assert (len(engine.requests), cloud.calls) == (1, 1)
        assert [entry["why"] for entry in await audit(app)] == [fault]


async def test_escalation_retracts_what_chat_has_shown(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine
) -> None:
    policy["escalate_on"] = ["length"]
    async with running(prepared, configuration, policy) as app:
        engine.queue = [[chunk({"content": "too lo"}), chunk(reason="length"), USAGE]]
        heard = await app.chat("Hello.")
        assert heard.names() == ["token", "retract", "token", "token", "usage", "done"]
        assert heard.text() == "from the cloud"
        assert heard.of("done")[0]["content"] == "from the cloud"
        assert heard.of("done")[0]["finish_reason"] == "stop"


async def test_a_repeated_call_is_escalated_before_it_ends_the_turn(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine
) -> None:
    async with running(prepared, configuration, policy) as app:
        engine.default = lambda _body: call_tool("slots")
        heard = await app.chat("Slots?")
        assert heard.text() == "from the cloud"
        assert (len(engine.requests), cloud.calls) == (3, 1)
        assert [entry["why"] for entry in await audit(app)] == ["repeated_calls"]


async def stream(app: AppProcess, **body: Any) -> list[Any]:
    response = await complete(app, stream=True, **body)
    assert response.status_code == 200, response.text
    return [
        json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")
    ]


def text_of(events: list[Any]) -> str:
    return "".join(
        event["choices"][0]["delta"].get("content") or ""
        for event in events
        if event.get("choices")
    )


async def test_openais_stream_cannot_retract_so_what_was_shown_stands(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine
) -> None:
    async with running(prepared, configuration, policy) as app:
        engine.queue = [say('{"ports": ', '["eighty"]}')]
        events = await stream(app, response_format=SCHEMA)
        assert text_of(events) == '{"ports": ["eighty"]}'
        assert cloud.calls == 0
        assert [entry["barred_by"] for entry in await audit(app)] == ["shown"]
        engine.queue = [[chunk(reason="stop"), USAGE]]  # nothing was shown of this one
        assert text_of(await stream(app)) == "from the cloud"


async def test_our_answer_comes_back_where_the_cloud_breaks_off(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine
) -> None:
    policy["escalate_on"] = ["length"]
    async with running(prepared, configuration, policy) as app:
        engine.queue = [[chunk({"content": "ours"}), chunk(reason="length"), USAGE]]
        cloud.queue = [[chunk({"content": "thei"}), CUT]]
        heard = await app.chat("Hello.")
        assert heard.names() == ["token", "retract", "token", "retract", "token", "usage", "done"]
        assert (heard.text(), heard.of("done")[0]["content"]) == ("ours", "ours")


async def test_with_the_cloud_down_too_there_is_one_clear_error(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    cloud.default = lambda _body: [Status(503)]
    async with running(prepared, configuration, policy) as app:
        refused = await complete(app)
        assert refused.status_code == 503
        error = refused.json()["error"]
        assert error["message"] == "neither our engines nor the cloud could finish the answer"
        assert error["retryable"]
        assert "secret detail" not in refused.text
        heard = await app.chat("Hello.")
        assert heard.names() == ["error"]
        assert cloud.calls == 2


async def test_the_breaker_leaves_a_failing_cloud_alone_then_tries_it(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    configuration["limits"]["engine_wait_seconds"] = 0.3
    cloud.default = lambda _body: [Status(500)]
    async with running(prepared, configuration, policy) as app:
        for _ in range(4):
            refused = await complete(app)
            assert refused.status_code == 503
        assert cloud.calls == 2
        assert "has failed lately" in refused.json()["error"]["message"]
        cloud.default = lambda _body: say("healed")
        await asyncio.sleep(1.5)
        assert (await complete(app)).json()["choices"][0]["message"]["content"] == "healed"


async def test_a_wrong_cloud_key_is_told_in_the_log_without_the_key(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    async with running(prepared, configuration, policy) as app:
        await app.end()
        (app.folder / "credentials" / "cloud_far_key").write_text("mistyped-secret")
        await app.start()
        assert (await complete(app)).status_code == 503
        assert "status_401" in app.log()
        assert "mistyped-secret" not in app.log()


async def test_when_our_engine_is_back_it_is_used_again(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    port = free_port()
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{port}"]
    async with running(prepared, configuration, policy) as app:
        assert (await app.chat("Hello.")).text() == "from the cloud"
        async with ScriptedEngine().serving(port) as engine:
            async with asyncio.timeout(12):
                while not engine.requests:
                    last = await app.chat("Hello.")
                    await asyncio.sleep(0.2)
            assert last.text() == "ok"
            calls = cloud.calls
            assert (await app.chat("Hello.")).text() == "ok"
            assert cloud.calls == calls


async def test_the_budget_at_the_cloud_holds_and_our_engines_are_then_waited_for(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, sql
) -> None:
    port = free_port()
    configuration["models"]["demo"] = {
        "endpoints": [f"http://127.0.0.1:{port}"], "max_output_tokens": 64,
    }  # fmt: skip
    policy["cloud_budget_tokens"] = 400
    usage_event = {"choices": [], "usage": {"prompt_tokens": 300, "completion_tokens": 50}}
    cloud.default = lambda _body: [chunk({"content": "dear"}), chunk(reason="stop"), usage_event]
    async with running(prepared, configuration, policy) as app:
        answers = []
        for _ in range(2):
            waiting = asyncio.create_task(complete(app))
            await asyncio.wait({waiting}, timeout=3)
            answers.append(waiting)
        assert [task.done() for task in answers] == [True, False]
        assert cloud.calls == 1
        async with ScriptedEngine().serving(port):
            body = (await answers[1]).json()
        assert body["choices"][0]["message"]["content"] == "ok"
        assert (await audit(app))[-1]["barred_by"] == "cloud_budget"
        assert usage(sql)["cloud:far"] == (0, 300, 50)


async def test_requests_at_once_cannot_share_one_rest_of_the_budget(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["demo"] = {
        "endpoints": [f"http://127.0.0.1:{free_port()}"], "max_output_tokens": 64,
    }  # fmt: skip
    configuration["limits"]["engine_wait_seconds"] = 0.3
    policy["cloud_budget_tokens"] = 500  # a request may use some 200
    async with running(prepared, configuration, policy) as app:
        hold = Hold()
        cloud.default = lambda _body: [hold, *say("dear")]
        asking = [asyncio.create_task(complete(app)) for _ in range(6)]
        async with asyncio.timeout(10):
            while sum(task.done() for task in asking) < 4:
                await asyncio.sleep(0.05)
        hold.release.set()
        codes = sorted([(await task).status_code for task in asking])
        assert (codes, cloud.calls) == ([200] * 2 + [503] * 4, 2)


async def test_a_client_that_leaves_the_cloud_is_still_charged(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, sql
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    hold = Hold()
    cloud.queue = [[chunk({"content": "a"}), chunk({"content": "b"}), hold]]
    async with running(prepared, configuration, policy) as app:
        async with app.streaming({"message": "Hello."}) as (heard, events):
            while heard.text() != "ab":
                await anext(events)
        await cloud.idle(seconds=2)
        async with asyncio.timeout(3):
            while "cloud:far" not in (used := usage(sql)):
                await asyncio.sleep(0.05)
        requests, prompt, completion = used["cloud:far"]
        assert (requests, completion) == (0, 2)
        assert prompt > 0
        assert (await audit(app, "route.answer"))[0]["outcome"] == "left"


async def test_beyond_the_medium_budget_a_cheaper_model_answers(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine, sql
) -> None:
    async with ScriptedEngine().serving() as small:
        small.default = lambda _body: say("small")
        configuration["models"]["small"] = {"endpoints": [small.url]}
        policy["over_medium"] = "small"
        async with running(prepared, configuration, policy) as app:
            key = app.run("keys", "create", "--name", "m", "--limit", "budget_medium=10")
            first, second = await complete(app, key), await complete(app, key)
            assert first.json()["choices"][0]["message"]["content"] == "ok"
            assert second.json()["choices"][0]["message"]["content"] == "small"
            assert second.headers["x-budget"] == "medium"
            app.key = key
            assert (await app.chat("Hello.")).text() == "small"
            assert {e["to"] for e in await audit(app)} == {"small"}
            assert usage(sql) == {"demo": (1, 10, 5), "small": (2, 20, 10)}
            assert cloud.calls == 0


async def test_beyond_the_medium_budget_the_cloud_is_first_or_last_as_configured(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine
) -> None:
    policy["over_medium"] = "cloud"
    async with running(prepared, configuration, policy) as app:
        key = app.run("keys", "create", "--name", "m", "--limit", "budget_medium=10")
        words = [
            (await complete(app, key)).json()["choices"][0]["message"]["content"] for _ in range(2)
        ]
        assert words == ["ok", "from the cloud"]
        cloud.default = lambda _body: [chunk({"content": "no"}), CUT]
        app.key = key
        heard = await app.chat("Hello.")
        assert heard.names() == ["token", "retract", "token", "usage", "done"]
        assert heard.text() == "ok"
        ward = app.run("keys", "create", "--name", "w", "--resident", "--limit", "budget_medium=10")
        calls = cloud.calls
        assert [(await complete(app, ward)).status_code for _ in range(2)] == [200, 200]
        assert cloud.calls == calls


async def test_beyond_the_medium_budget_no_cloud_is_asked_by_default(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud, engine: ScriptedEngine
) -> None:
    configuration["limits"]["engine_wait_seconds"] = 0.5
    async with running(prepared, configuration, policy) as app:
        key = app.run("keys", "create", "--name", "m", "--limit", "budget_medium=10")
        await complete(app, key)
        engine.default = lambda _body: [Status(503)]
        refused = await complete(app, key)
        assert (refused.status_code, cloud.calls) == (503, 0)
        assert "beyond its medium budget" in refused.json()["error"]["message"]


async def test_ready_is_degraded_while_a_cloud_can_stand_in(
    prepared: AppProcess, configuration, policy, cloud: ScriptedCloud
) -> None:
    configuration["models"]["demo"]["endpoints"] = [f"http://127.0.0.1:{free_port()}"]
    configuration["limits"]["engine_wait_seconds"] = 0.3
    async with running(prepared, configuration, policy) as app:
        response = await app.client.get("/ready")
        assert response.status_code == 200, response.text
        assert set(response.json()["degraded"]) == {"engine_demo"}
        cloud.default = lambda _body: [Status(500)]
        for _ in range(2):
            await complete(app)
        assert (await app.client.get("/ready")).status_code == 503  # its breaker is open


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cloud_budget_tokens": 0}, "must bound what a key may spend"),
        ({"over_medium": "tiny"}, "neither local, cloud nor one of models"),
        ({"cloud": {"name": "far", "endpoint": "https://c.example/v1", "model": "m",
                    "headers": {"X-Api-Key": "s"}}}, "name its file in `credential`"),
    ],
)  # fmt: skip
def test_a_route_that_is_wrong_is_refused_with_its_key(
    prepared: AppProcess, configuration, policy, change: dict[str, Any], words: str
) -> None:
    configuration["routes"] = {"demo": {**policy, **change}}
    done = AppProcess(prepared.folder, configuration).complete("check")
    assert done.returncode == 2
    assert words in done.stderr


def test_a_missing_cloud_key_is_named_at_the_start(
    prepared: AppProcess, configuration, policy
) -> None:
    configuration["routes"] = {"demo": policy}
    done = AppProcess(prepared.folder, configuration).complete("serve", "--port", "1")
    assert done.returncode == 2
    assert re.search(r"cloud_far_key.*missing", done.stderr)
