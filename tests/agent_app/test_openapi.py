"""The OpenAPI document is whole, and what the app answers is what it says."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from app_process import ROOT, AppProcess
from schema_judge import judge_routes


@pytest.fixture
async def documented(
    prepared: AppProcess, configuration: dict[str, Any]
) -> AsyncIterator[AppProcess]:
    configuration["docs"] = True
    configuration["limits"]["engine_wait_seconds"] = 2
    app = AppProcess(prepared.folder, configuration)
    app.key = app.run("keys", "create", "--name", "judge", "--scope", "chat", "--scope", "admin")
    await app.start()
    yield app
    await app.kill()
    await app.client.aclose()


def judge(app: AppProcess, *, phases: str, seconds: int, examples: int) -> None:
    said = judge_routes(
        f"{app.url}/openapi.json", app.key, app.folder,
        phases=phases, seconds=seconds, examples=examples,
    )  # fmt: skip
    assert said.sound, said.output


async def test_every_route_answers_as_the_document_says(documented: AppProcess) -> None:
    await asyncio.to_thread(judge, documented, phases="examples,fuzzing", seconds=20, examples=10)
    assert "Traceback" not in documented.log()


@pytest.mark.long
async def test_every_route_answers_as_the_document_says_at_length(documented: AppProcess) -> None:
    await asyncio.to_thread(
        judge, documented, phases="examples,coverage,fuzzing,stateful", seconds=600, examples=500
    )
    assert "Traceback" not in documented.log()


async def test_the_document_is_served_only_where_it_is_wanted(
    documented: AppProcess,
) -> None:
    served = await documented.client.get("/openapi.json")
    printed = subprocess.run(
        [sys.executable, "-m", "agent_app", "openapi"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert served.json() == json.loads(printed.stdout)
    assert (await documented.client.get("/docs")).status_code == 200


async def test_without_docs_there_is_no_document(app: AppProcess) -> None:
    assert (await app.client.get("/openapi.json")).status_code == 404
    assert (await app.client.get("/docs")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PUT", "/chat", 405),
        ("GET", "/threads", 401),
        ("GET", "/threads/x", 400),
        ("POST", "/chat", 413),
    ],
)
async def test_every_error_has_the_documented_shape(
    documented: AppProcess, method: str, path: str, status: int
) -> None:
    headers = {} if status == 401 else documented.headers()
    body = b"x" * 1_000_001 if status == 413 else None
    response = await documented.client.request(method, path, headers=headers, content=body)
    assert response.status_code == status
    document = (await documented.client.get("/openapi.json")).json()
    detail = document["components"]["schemas"]["ErrorDetail"]
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == set(detail["properties"])
    assert response.json()["error"]["request_id"] == response.headers["x-request-id"]


async def test_half_characters_and_nulls_are_refused_or_carried_but_never_break_us(
    documented: AppProcess,
) -> None:
    async with httpx2.AsyncClient(base_url=documented.url, trust_env=False) as client:
        completion = '{"messages": [{"role": "user", "content": %s}]}'
        for text in ('"\\u0000"', '"\\ud800"', '"a\\u0000b"'):
            for path, body in (
                ("/chat", f'{{"message": {text}, "stream": false}}'),
                ("/chat", f'{{"message": "x", {text}: 1}}'),
                ("/v1/chat/completions", completion % text),
                ("/v1/responses", f'{{"input": {text}}}'),
                ("/v1/responses", f'{{"input": [{{"a": {text}}}]}}'),
            ):
                headers = {**documented.headers(), "Content-Type": "application/json"}
                response = await client.post(path, content=body.encode(), headers=headers)
                assert response.status_code in (200, 400), f"{path} {body} {response.text}"
