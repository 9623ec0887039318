"""What the metrics port tells, and that nobody outside can make it grow."""

import re

from app_process import AppProcess
from scripted_engine import ScriptedEngine, Status, call_tool, say

HISTOGRAMS = {
    'agent_app_request_seconds_count{method="POST",route="/chat"}': 2,
    'agent_app_first_token_seconds_count{model="demo"}': 2,
    'agent_app_engine_first_token_seconds_count{model="demo"}': 3,
    'agent_app_token_gap_seconds_count{model="demo"}': 5,
    'agent_app_engine_wait_seconds_count{model="demo"}': 3,
    'agent_app_step_seconds_count{model="demo",step="chat"}': 3,
    'agent_app_step_seconds_count{model="demo",step="tools"}': 1,
    'agent_app_tool_seconds_count{tool="search_knowledge"}': 1,
}


def value(page: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    assert found is not None, f"{series} is not in\n{page}"
    return float(found[1])


async def test_tokens_steps_tools_and_requests_are_timed(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [[Status(503)], call_tool("port"), say("It ", "is ", "8000."), say(*"abcd")]
    await app.chat("Which port?")
    await app.chat("Letters.")
    page = await app.metrics()
    assert {series: value(page, series) for series in HISTOGRAMS} == HISTOGRAMS
    assert value(page, 'agent_app_token_gap_seconds_bucket{le="+Inf",model="demo"}') == 5
    # The first step waited for an attempt that failed.
    assert value(page, 'agent_app_engine_wait_seconds_bucket{le="+Inf",model="demo"}') == 3
    assert 'agent_app_build_info{python="3.' in page
    for gauge in ("process_open_fds", "process_resident_memory_bytes", "agent_app_tasks"):
        assert value(page, gauge) > 0


async def test_the_event_loop_and_the_pool_are_watched(app: AppProcess) -> None:
    async def beats() -> float:
        return value(await app.metrics(), "agent_app_event_loop_lag_seconds_count")

    for _ in range(100):
        if await beats() >= 2:
            break
        await app.client.get("/health")
    page = await app.metrics()
    assert value(page, "agent_app_event_loop_lag_seconds_count") >= 2
    assert value(page, 'agent_app_database_connections{state="idle"}') >= 1


async def test_a_client_cannot_make_the_metrics_grow(app: AppProcess) -> None:
    await app.client.get("/threads", headers=app.headers())
    before = len((await app.metrics()).splitlines())
    for number in range(50):
        await app.client.get(f"/threads/{number:032x}", headers=app.headers())
        await app.client.get(f"/made/up/{number}")
        await app.client.request(f"BREW{number}", "/chat")
    page = await app.metrics()
    routes = set(re.findall(r'agent_app_requests_total\{.*route="([^"]*)"', page))
    assert routes <= {"/threads", "/threads/{thread_id}", "/health", "/chat", "unmatched"}
    methods = set(re.findall(r'agent_app_requests_total\{method="([^"]*)"', page))
    assert methods <= {"GET", "other"}  # the parser refuses most inventions before we see them
    assert len(page.splitlines()) < before + 100


async def test_routes_under_a_prefix_keep_their_whole_template(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    body = {"messages": [{"role": "user", "content": "Hi."}]}
    answer = await app.client.post("/v1/chat/completions", json=body, headers=app.headers())
    assert answer.status_code == 200
    page = await app.metrics()
    assert value(
        page, 'agent_app_requests_total{method="POST",route="/v1/chat/completions",status="200"}'
    )
