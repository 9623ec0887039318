"""Engines that are killed or fall silent in the middle of an answer."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from app_process import ROOT, AppProcess
from scripted_engine import Hold, ScriptedEngine, chunk, say
from vitals import held, settles

from ops.lab import demo_model
from tests.contract.engines import started
from tests.ports import free_port

TEXT = "One two three four five six seven eight nine ten eleven twelve."


class StandIn:
    """A stand-in engine as a process that can be killed."""

    def __init__(self, folder: Path, port: int, text: str = TEXT) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder, self._port, self._text = folder, port, text
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        script = self._folder / "script.yml"
        script.write_text(f"answers: [{{match: '.', text: '{self._text}'}}]\n")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stand_in_engine", "serve", str(self._folder),
             "--port", str(self._port), "--served-model-name", "demo", "--script", str(script),
             "--tokens-per-second", "8"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    async def answers(self) -> None:
        async with httpx2.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    await client.get(f"{self.url}/health")
                    return
                await asyncio.sleep(0.1)

    async def busy(self) -> bool:
        # Without certificates, which take longer to load than some words to come.
        async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
            return (await client.get(f"{self.url}/load")).json()["server_load"] > 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextlib.asynccontextmanager
async def serving(
    prepared: AppProcess, configuration: dict[str, Any], engines: list[StandIn], *more: str
) -> AsyncIterator[AppProcess]:
    """The app before these engines, and others by their addresses."""
    for engine in engines:
        await engine.answers()
    configuration["models"]["demo"]["endpoints"] = [
        *(engine.url for engine in engines),
        *more,
    ]
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    try:
        yield app
    finally:
        await app.kill()
        await app.client.aclose()
        for engine in engines:
            engine.kill()


async def test_an_engine_killed_in_mid_stream_costs_a_retraction_where_there_is_another(
    prepared: AppProcess, configuration: dict[str, Any], tmp_path: Path
) -> None:
    engines = [StandIn(tmp_path, free_port()) for _ in range(2)]
    async with serving(prepared, configuration, engines) as app:
        before = await held(app)
        async with app.streaming({"message": "Count."}) as (heard, events):
            while heard.names().count("token") < 3:
                await anext(events)
            [victim] = [engine for engine in engines if await engine.busy()]
            killed = time.monotonic()
            victim.kill()
            async for name in events:
                if name == "token" and "retract" in heard.names():
                    break
            assert time.monotonic() - killed < 2
            async for _ in events:
                pass
        assert heard.names().count("retract") == 1
        assert heard.names()[-1] == "done"
        assert heard.text() == TEXT
        await settles(app, before)


async def openai_stream(
    app: AppProcess, said: str, after_three_words: Callable[[], Awaitable[None]]
) -> tuple[str, list[str]]:
    """Stream from /v1; the text, and the reasons why it ended."""
    text, ends, called = "", [], False
    body = {"messages": [{"role": "user", "content": said}], "stream": True}
    async with app.client.stream(
        "POST", "/v1/chat/completions", json=body, headers=app.headers()
    ) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            [choice] = json.loads(line[6:])["choices"]  # an error event has none
            text += choice["delta"].get("content") or ""
            ends += [choice["finish_reason"]] if choice["finish_reason"] else []
            if not called and text.count(" ") >= 2:
                called = True
                await after_three_words()
    return text, ends


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "beside-another"])
async def test_an_openai_stream_outlives_its_killed_engine(
    prepared: AppProcess, configuration: dict[str, Any], tmp_path: Path, count: int
) -> None:
    engines = [StandIn(tmp_path, free_port()) for _ in range(count)]

    async def kill() -> None:
        [victim] = [engine for engine in engines if await engine.busy()]
        victim.kill()
        if count == 1:
            victim.start()

    async with serving(prepared, configuration, engines) as app:
        before = await held(app)
        assert await openai_stream(app, "Count.", kill) == (TEXT, ["stop"])
        assert "agent_app_answers_continued_total" in await app.metrics()
        await settles(app, before)


@pytest.mark.lab
@pytest.mark.long
@pytest.mark.timeout(900)
async def test_real_vllm_goes_on_with_what_a_killed_engine_began(
    prepared: AppProcess, configuration: dict[str, Any], tmp_path: Path
) -> None:
    dialogues = yaml.safe_load(demo_model.DIALOGUES.read_text())["dialogues"]
    whole = next(each["answer"] for each in dialogues if each["name"] == "hello")
    configuration["tools"] = {}
    with started("vllm", tmp_path) as vllm:
        killed = False
        while not killed:  # it may be vLLM that gets the request
            begun = StandIn(tmp_path, free_port(), whole)

            async def kill(engine: StandIn = begun) -> None:
                nonlocal killed
                killed = await engine.busy()
                if killed:
                    engine.kill()

            async with serving(prepared, configuration, [begun], str(vllm.url)) as app:
                assert await openai_stream(app, "Hello", kill) == (whole, ["stop"])
                continued = "agent_app_answers_continued_total{" in await app.metrics()
                assert continued == killed


async def test_an_engine_killed_alone_is_waited_for_until_it_is_back(
    prepared: AppProcess, configuration: dict[str, Any], tmp_path: Path
) -> None:
    engine = StandIn(tmp_path, free_port())
    async with serving(prepared, configuration, [engine]) as app:
        before = await held(app)
        async with app.streaming({"message": "Count."}) as (heard, events):
            while heard.names().count("token") < 3:
                await anext(events)
            engine.kill()
            await asyncio.sleep(2)
            engine.start()
            async for _ in events:
                pass
        assert heard.names()[-1] == "done"
        assert heard.text() == TEXT
        await settles(app, before)


async def test_an_engine_that_hangs_is_left_after_its_silence(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["limits"]["engine_silence_seconds"] = 1
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    before, hold = await held(app), Hold()
    engine.queue = [[chunk({"content": "Half"}), hold], say("whole")]
    began = time.monotonic()
    heard = await app.chat("Go on.")
    assert heard.names() == ["token", "retract", "token", "usage", "done"]
    assert time.monotonic() - began < 5
    await engine.idle(2)
    await settles(app, before)
    assert await app.end() == 0
    await app.client.aclose()
