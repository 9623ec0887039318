"""The OpenAPI document is whole, and what the app answers is what it says."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from app_process import ROOT, AppProcess

SEED = 20261125
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
]
"""Not negative_data_rejection: pydantic takes "1" for 1 and false for 0, and so do our routes."""


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
    """Let schemathesis call every route, with data that fits the schema and data that does not."""
    settings = app.folder / "schemathesis.toml"
    settings.write_text(f'[headers]\nAuthorization = "Bearer {app.key}"\n')
    process = subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "--config-file", settings, "run",
         f"{app.url}/openapi.json", "--checks", ",".join(CHECKS), "--seed", str(SEED),
         "--phases", phases, "--max-examples", str(examples),
         "--max-time", str(seconds), "--request-timeout", "20", "--continue-on-failure",
         "--suppress-health-check", "all", "--warnings", "off", "--no-color"],
        cwd=app.folder, capture_output=True, text=True, timeout=10 * seconds + 120,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-8000:] + process.stderr[-2000:]
    assert "No issues found" in process.stdout


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
