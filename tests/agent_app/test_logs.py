"""One JSON line a request, everything under its correlation ID, and no text of a conversation."""

import asyncio
import json
import re
from typing import Any

from app_process import AppProcess
from data_servers import PASSWORD
from scripted_engine import ERROR_EVENT, ScriptedEngine, Status, call_tool, chunk, say

CANARY = re.compile("canary", re.IGNORECASE)


def requests(app: AppProcess) -> list[dict[str, Any]]:
    return [line for line in app.lines() if line["event"] == "request"]


async def written(app: AppProcess, event: str) -> dict[str, Any]:
    """Wait for a line: another thread writes them."""
    for _ in range(200):
        for line in app.lines():
            if line["event"] == event:
                return line
        await asyncio.sleep(0.02)
    raise AssertionError(f"no line {event} in\n{app.log()}")


async def test_a_request_is_one_line_with_what_an_operator_asks_first(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    answer = await app.client.post(
        "/chat", json={"message": "Hi."}, headers={**app.headers(), "X-Request-ID": "my-request-1"}
    )
    line = await written(app, "request")
    assert line["request_id"] == "my-request-1"
    assert (line["route"], line["method"], line["status"]) == ("/chat", "POST", 200)
    assert line["bytes_in"] == len(json.dumps({"message": "Hi."}, separators=(",", ":")))
    assert line["bytes_out"] == len(answer.content)
    assert line["complete"] is True
    assert line["seconds"] > 0
    assert line["key"] == app.key[:11]
    assert len(requests(app)) == 1


async def test_a_client_that_leaves_is_told_from_one_that_was_served(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [[*say("a", "b")[:1], *[chunk({"content": "x"})] * 20_000]]
    async with app.streaming({"message": "Go."}) as (_, events):
        await anext(events)
    assert (await written(app, "request"))["complete"] is False


async def test_every_line_inside_a_run_has_its_correlation_run_and_key(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [[Status(503)], [chunk({"content": "half"}), ERROR_EVENT], say("whole")]
    heard = await app.chat("Hello.")
    done = heard.of("done")[0]
    await written(app, "request")
    failed = [line for line in app.lines() if line["event"] == "engine_failed"]
    assert len(failed) == 2
    assert {line["run"] for line in failed} == {done["run_id"]}
    assert {line["key"] for line in failed} == {app.key[:11]}
    assert {line["request_id"] for line in failed} == {requests(app)[0]["request_id"]}
    assert failed[0]["detail"] == "type=BadRequestError code=400"


async def test_no_secret_and_no_text_of_a_conversation_is_logged(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    echo = "you sent: the canary that the engine quotes"
    engine.queue = [
        call_tool("canary query"), say("canary answer"),
        [Status(400, echo)], [Status(500, echo)], say("fine"),
        [{"error": {"message": echo, "code": 500}}], ["canary garbage"], say("fine"),
        call_tool("canary that breaks a constraint"),
        call_tool("canary that breaks the tool"), say("went on"),
    ]  # fmt: skip
    await app.chat("A canary sings.")
    assert (await app.chat("Another canary.")).names() == ["error"]
    assert (await app.chat("A third canary.")).text() == "fine"
    assert (await app.chat("A fourth canary.")).text() == "fine"
    sql.execute("ALTER TABLE app.tool_effects ADD CHECK (arguments::text !~ 'constraint')")
    broken = await app.chat("A canary in a row.")
    assert [error["code"] for error in broken.of("error")] == ["internal_error"]
    sql.execute("DROP TABLE app.knowledge_chunks CASCADE")
    assert (await app.chat("A canary for a tool.")).text() == "went on"
    bad = {"message": ["canary"], "canary": 1}
    assert (await app.client.post("/chat", json=bad, headers=app.headers())).status_code == 400
    forged = {"Authorization": "Bearer rh_canary-0123456789012345678901234567890123"}
    assert (await app.client.get("/threads", headers=forged)).status_code == 401
    await app.end()
    log = app.log()
    assert not CANARY.search(log), CANARY.findall(log)
    for secret in (app.key, PASSWORD, "0123456789abcdef0123456789abcdef"):
        assert secret not in log
    events = {line["event"] for line in app.lines()}
    assert {"run_failed", "tool_failed", "engine_failed", "run_ended"} <= events
    told = next(line for line in app.lines() if line["event"] == "run_failed")["exception"]
    assert told.splitlines()[0] == "psycopg.errors.CheckViolation"
    assert "agent_app/state/effects.py:" in told


async def test_at_debug_the_messages_of_exceptions_are_there(
    prepared: AppProcess, configuration, engine: ScriptedEngine, sql
) -> None:
    configuration["telemetry"] = {"log_level": "debug"}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    sql.execute("DROP TABLE app.knowledge_chunks CASCADE")
    engine.queue = [call_tool("port"), say("went on")]
    await app.chat("Hello.")
    line = await written(app, "tool_failed")
    assert 'relation "app.knowledge_chunks" does not exist' in line["exception"]
    await app.end()
    await app.client.aclose()


async def test_what_libraries_say_is_json_too(app: AppProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    writer.write(b"NOT HTTP AT ALL\r\n\r\n")
    await reader.read()
    writer.close()
    await app.end()
    loggers = {line["logger"] for line in app.lines()}
    assert "uvicorn.error" in loggers
    assert any("Invalid HTTP request" in line["event"] for line in app.lines())
