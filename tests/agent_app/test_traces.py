"""Spans at a real OTLP receiver: their tree, their attributes, and what an absent one costs."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from app_process import AppProcess
from collector import Collector, collecting
from scripted_engine import ScriptedEngine, Status, call_tool, say

from tests.ports import free_port

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def telemetry(collector: Collector) -> dict[str, Any]:
    return {"otlp_endpoint": collector.url}


@pytest.fixture
async def traced(
    prepared: AppProcess, configuration: dict[str, Any], telemetry: dict[str, Any]
) -> AsyncIterator[AppProcess]:
    configuration["telemetry"] = telemetry
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    credentials = app.folder / "credentials"
    (credentials / "telemetry_headers").write_text("Authorization: Basic very-secret-word\n")
    await app.start()
    yield app
    await app.client.aclose()
    if app.process is not None and app.process.is_alive():
        await app.kill()


def dropped(page: str, reason: str) -> float:
    found = re.search(rf'agent_app_spans_dropped_total{{reason="{reason}"}} (\S+)', page)
    return float(found[1]) if found else 0.0


async def test_a_turn_is_one_trace_from_request_to_tool(
    traced: AppProcess, collector: Collector, engine: ScriptedEngine
) -> None:
    engine.queue = [[Status(503)], call_tool("canary port"), say("The canary is 8000.")]
    heard = await traced.chat("Which port has the canary?")
    assert await traced.end() == 0
    root = collector.named("POST /chat")[0]
    run = collector.named("invoke_agent rackhand")[0]
    steps = collector.named("step chat")
    attempts = collector.named("chat demo")
    tool = collector.named("execute_tool search_knowledge")[0]
    assert root.attributes["http.route"] == "/chat"
    assert root.attributes["http.response.status_code"] == 200
    assert (root.parent, run.parent) == ("", root.id)
    assert [step.parent for step in steps] == [run.id, run.id]
    assert [attempt.parent for attempt in attempts] == [steps[0].id, steps[0].id, steps[1].id]
    assert tool.parent == collector.named("step tools")[0].id
    turn = [root, run, *steps, *attempts, tool]
    assert {span.trace for span in turn} == {root.trace}
    assert run.attributes["gen_ai.conversation.id"] == heard.thread_id
    assert run.attributes["gen_ai.usage.output_tokens"] == 10
    assert [attempt.failed for attempt in attempts] == [True, False, False]
    assert attempts[0].attributes["error.type"] == "status_503"
    last = attempts[2].attributes
    assert last["gen_ai.request.model"] == "demo"
    assert last["gen_ai.request.max_tokens"] == 1024
    assert (last["gen_ai.usage.input_tokens"], last["gen_ai.usage.output_tokens"]) == (10, 5)
    assert last["gen_ai.response.finish_reasons"] == ["stop"]
    assert last["gen_ai.response.time_to_first_chunk"] > 0
    assert root.resource["service.name"] == "agent-app"
    # The engine's own spans join under the attempt.
    passed_on = [headers["traceparent"].split("-")[1:3] for headers in engine.headers]
    assert passed_on == [[root.trace, attempt.id] for attempt in attempts]
    assert {h["authorization"] for h in collector.headers} == {"Basic very-secret-word"}
    assert "canary" not in str(collector.spans)
    assert "very-secret-word" not in traced.log()
    line = next(line for line in traced.lines() if line["event"] == "request")
    assert line["trace_id"] == root.trace


async def test_a_clients_trace_is_not_taken_on_unless_configured(
    traced: AppProcess, collector: Collector, engine: ScriptedEngine
) -> None:
    await traced.client.get("/threads", headers={**traced.headers(), **TRACEPARENT})
    await traced.end()
    assert collector.named("GET /threads")[0].trace != TRACE


@pytest.mark.parametrize(("sampled", "spans"), [("01", True), ("00", False)])
@pytest.mark.parametrize("telemetry", [{"accept_traceparent": True, "sample_ratio": 0.0}])
async def test_a_clients_trace_goes_on_here_where_configured(
    prepared: AppProcess,
    configuration: dict[str, Any],
    collector: Collector,
    telemetry: dict[str, Any],
    sampled: str,
    spans: bool,
) -> None:
    configuration["telemetry"] = {**telemetry, "otlp_endpoint": collector.url}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-{sampled}"}
    assert (await app.client.get("/threads", headers={**app.headers(), **parent})).is_success
    await app.end()
    await app.client.aclose()
    found = [(span.trace, span.parent) for span in collector.named("GET /threads")]
    assert found == ([(TRACE, PARENT)] if spans else [])


@pytest.mark.parametrize("telemetry", [{"queue_spans": 16, "export_seconds": 30}])
async def test_a_collector_that_is_away_costs_spans_and_no_time(
    prepared: AppProcess, configuration: dict[str, Any], telemetry: dict[str, Any]
) -> None:
    configuration["telemetry"] = {
        **telemetry, "otlp_endpoint": f"http://127.0.0.1:{free_port()}"
    }  # fmt: skip
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    longest = 0.0
    for number in range(30):
        began = time.monotonic()
        assert (await app.chat(f"Hello {number}.")).names()[-1] == "done"
        longest = max(longest, time.monotonic() - began)
    assert longest < 2
    assert dropped(await app.metrics(), "queue_full") > 0
    began = time.monotonic()
    assert await app.end() == 0
    assert time.monotonic() - began < 8
    await app.client.aclose()


async def test_a_collector_that_hangs_costs_no_time_either(
    traced: AppProcess, collector: Collector, engine: ScriptedEngine
) -> None:
    collector.delay_seconds = 5
    began = time.monotonic()
    for number in range(10):
        await traced.chat(f"Hello {number}.")
    assert time.monotonic() - began < 5


def loads_protobuf(app: AppProcess) -> bool:
    """Whether the process has loaded what the exporter needs."""
    assert app.process is not None
    return "google/_upb" in Path(f"/proc/{app.process.pid}/maps").read_text()


async def test_with_a_collector_its_library_is_loaded(traced: AppProcess) -> None:
    assert loads_protobuf(traced)


async def test_without_a_collector_nothing_of_it_is_loaded(app: AppProcess) -> None:
    await app.chat("Hello.")
    assert not loads_protobuf(app)


async def test_bad_headers_are_refused_at_the_start_with_the_cure(
    prepared: AppProcess, configuration: dict[str, Any]
) -> None:
    configuration["telemetry"] = {"otlp_endpoint": "http://127.0.0.1:1"}
    app = AppProcess(prepared.folder, configuration)
    (app.folder / "credentials" / "telemetry_headers").write_text("very-secret-word\n")
    process = app.command("serve", "--port", str(app.port), "--metrics-port", str(free_port()))
    out, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "telemetry_headers" in out + err
    assert "very-secret-word" not in out + err
