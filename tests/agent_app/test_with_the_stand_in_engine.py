"""The app before an engine that behaves as vLLM does, and the demo's own documents."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from app_process import ROOT, AppProcess

from tests.ports import free_port

DEMO = ROOT / "ops/lab/demo_model"


@pytest.fixture
async def engine_url(tmp_path: Path) -> AsyncIterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "stand_in_engine", "serve", str(tmp_path), "--port", str(port),
         "--served-model-name", "demo", "--dialogues", str(DEMO / "dialogues.yml"),
         "--tokens-per-second", "20"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            try:
                if (await client.get(f"{url}/health")).status_code == 200:
                    break
            except httpx2.TransportError:
                await asyncio.sleep(0.1)
    yield url
    process.terminate()
    await asyncio.to_thread(process.wait, 20)


@pytest.fixture
def configuration(configuration: dict[str, Any], engine_url: str) -> dict[str, Any]:
    configuration["models"]["demo"]["endpoints"] = [engine_url]
    return configuration


async def requests_running(engine_url: str) -> float:
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"{engine_url}/metrics")).text
    found = re.search(r"^vllm:num_requests_running\{.*\} ([\d.]+)$", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_the_demo_question_is_answered_from_the_demo_documents(app: AppProcess) -> None:
    app.run("knowledge", "ingest", str(DEMO / "knowledge"))
    heard = await app.chat("What is Rackhand?")
    assert heard.names()[:2] == ["tool", "tool"]
    assert heard.of("tool")[1]["result"].startswith("[1] What Rackhand is: Rackhand turns Ubuntu")
    assert heard.text().startswith("Rackhand turns Ubuntu GPU servers")
    assert heard.names()[-1] == "done"


async def test_a_client_that_leaves_is_seen_in_the_engines_own_metrics(
    app: AppProcess, engine_url: str
) -> None:
    async with app.streaming({"message": "What is Rackhand?"}) as (heard, events):
        while "token" not in heard.names():
            await anext(events)
        assert await requests_running(engine_url) == 1
    left = time.monotonic()
    while await requests_running(engine_url):
        assert time.monotonic() - left < 2
        await asyncio.sleep(0.05)


async def test_what_a_client_that_left_is_charged_is_the_engines_own_count(
    app: AppProcess, engine_url: str, sql
) -> None:
    async with app.streaming({"message": "What is Rackhand?"}) as (heard, events):
        while heard.names().count("token") < 3:
            await anext(events)
    async with asyncio.timeout(5):
        while not (row := sql.execute("SELECT prompt_tokens, completion_tokens FROM app.usage")
                   .fetchone()):  # fmt: skip
            await asyncio.sleep(0.05)
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"{engine_url}/metrics")).text

    def counter(name: str) -> float:
        return sum(
            float(value)
            for value in re.findall(rf"^vllm:{name}\{{.*\}} ([\d.]+)$", page, re.MULTILINE)
        )

    assert row[0] == counter("prompt_tokens_total") > 0
    assert 0 <= counter("generation_tokens_total") - row[1] <= 2  # what was on its way


async def test_the_openai_client_talks_to_it_through_the_app(app: AppProcess) -> None:
    app.run("knowledge", "ingest", str(DEMO / "knowledge"))
    async with openai.AsyncOpenAI(
        base_url=f"{app.url}/v1", api_key=app.key, max_retries=0
    ) as client:
        asked: Any = {
            "model": "demo",
            "messages": [{"role": "user", "content": "What is Rackhand?"}],
        }
        answer = await client.chat.completions.create(**asked)
        assert answer.choices[0].message.content.startswith("Rackhand turns Ubuntu GPU servers")
        stream = await client.chat.completions.create(**asked, stream=True)
        words = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(words) == answer.choices[0].message.content
        assert len(words) > 3
        with pytest.raises(openai.NotFoundError, match="do not offer /v1/responses"):
            await client.responses.create(model="demo", input="What is Rackhand?")
