"""Two processes before one engine that is always full: who gets how much of it."""

import asyncio
import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from app_process import ROOT, AppProcess

from stand_in_engine import script
from tests.ports import free_port

PLACES = 24
TOKENS_PER_SECOND = 15
"""Of each answer: so slow that the engine's places are short, and not the CPU of the tests."""


@pytest.fixture
async def engine_url(tmp_path: Path) -> AsyncIterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "stand_in_engine", "serve", str(tmp_path), "--port", str(port),
         "--served-model-name", "demo", "--tokens-per-second", str(TOKENS_PER_SECOND)],
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
    configuration["models"]["demo"] |= {"endpoints": [engine_url], "concurrency": PLACES}
    return configuration


@pytest.fixture
async def both(
    app: AppProcess, tmp_path: Path, configuration: dict[str, Any]
) -> AsyncIterator[list[AppProcess]]:
    folder = tmp_path / "second"
    folder.mkdir()
    second = AppProcess(folder, configuration)
    await second.start()
    yield [app, second]
    for process in (app, second):
        await process.end()  # and not killed: their places would be taken until their leases end
    await second.client.aclose()


@dataclass
class Load:
    """Streams that ask again as soon as they are answered, each for a text of its own."""

    apps: list[AppProcess]
    tokens: Counter[str] = field(default_factory=Counter)
    """By key, as they come; a prompt's with its usage."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By key and stream."""
    longest_wait: Counter[str] = field(default_factory=Counter)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    streams: "list[asyncio.Task[None]]" = field(default_factory=list)

    def open(self, name: str, key: str, count: int, answer_tokens: int) -> None:
        for n in range(count):
            app = self.apps[len(self.streams) % len(self.apps)]
            stream = self._stream(app, name, key, n, answer_tokens)
            self.streams.append(asyncio.create_task(stream, name=name))

    async def close(self) -> None:
        for stream in self.streams:
            stream.cancel()
        ends = await asyncio.gather(*self.streams, return_exceptions=True)
        assert not [end for end in ends if not isinstance(end, asyncio.CancelledError)]

    async def _stream(self, app: AppProcess, name: str, key: str, n: int, most: int) -> None:
        # Two hundred that load certificates would keep a slow machine busy for seconds.
        async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=120) as client:
            while True:
                await self._ask(client, app, name, key, n, random.randint(most // 2, most))

    async def _ask(
        self, client: httpx2.AsyncClient, app: AppProcess, name: str, key: str, n: int, most: int
    ) -> None:
        question = f"{name} {n} {next(self.numbers)} " + " ".join(
            random.choices(["red", "green", "blue"], k=4)
        )
        expected = "".join(itertools.islice(script.endless(f"{script.ECHO} {question}"), most))
        body = {
            "messages": [{"role": "user", "content": question}],
            "stream": True, "max_tokens": most, "stream_options": {"include_usage": True},
        }  # fmt: skip
        heard, asked = "", time.monotonic()
        async with client.stream(
            "POST", f"{app.url}/v1/chat/completions", json=body,
            headers={"Authorization": f"Bearer {key}"},
        ) as response:  # fmt: skip
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                if usage := event.get("usage"):
                    self.tokens[name] += usage["prompt_tokens"]
                elif text := event["choices"][0]["delta"].get("content"):
                    if not heard:
                        waited = time.monotonic() - asked
                        self.longest_wait[name] = max(self.longest_wait[name], waited)
                    heard += text
                    self.tokens[name] += 1
        assert heard == expected
        self.answers[name, n] += 1

    async def answered(self, *names: str) -> None:
        """Wait until each stream of these keys had an answer."""
        count = sum(stream.get_name() in names for stream in self.streams)
        async with asyncio.timeout(180):
            while sum(key in names for key, _ in self.answers) < count:
                assert not [stream for stream in self.streams if stream.done()]
                await asyncio.sleep(0.1)

    async def settle(self, *names: str) -> None:
        """Wait until all streams of these keys are at work, and count tokens from there."""
        await self.answered(*names)
        self.tokens.clear()

    async def hear(self, tokens: int) -> Counter[str]:
        """Wait for so many tokens of all keys together, and tell whose they were."""
        async with asyncio.timeout(120):
            while self.tokens.total() < tokens:
                await asyncio.sleep(0.1)
        return Counter(self.tokens)


def make_key(app: AppProcess, name: str, *limits: str) -> str:
    return app.run("keys", "create", "--name", name, *(f"--limit={limit}" for limit in limits))


def resident_mib(app: AppProcess) -> float:
    assert app.process is not None
    status = Path(f"/proc/{app.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


async def engine_gauge(url: str, name: str) -> float:
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"{url}/metrics")).text
    found = re.search(rf"^vllm:{name}\{{.*\}} ([\d.]+)$", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


def spread(tokens: Counter[str]) -> float:
    return max(tokens.values()) / min(tokens.values())


async def test_200_streams_of_3_keys_get_equal_shares_though_one_key_has_140_of_them(
    both: list[AppProcess], engine_url: str
) -> None:
    load = Load(both)
    keys = {name: make_key(both[0], name) for name in ("greedy", "b", "c")}
    load.open("greedy", keys["greedy"], 140, answer_tokens=40)
    load.open("b", keys["b"], 30, answer_tokens=20)
    load.open("c", keys["c"], 30, answer_tokens=30)
    await load.settle("b", "c")
    began = time.monotonic()
    memory, running, waiting = [], [], []
    for _ in range(10):
        memory.append([resident_mib(app) for app in both])
        await asyncio.sleep(3)
        running.append(await engine_gauge(engine_url, "num_requests_running"))
        waiting.append(await engine_gauge(engine_url, "num_requests_waiting"))
        assert not [stream for stream in load.streams if stream.done()]
    seconds, tokens = time.monotonic() - began, Counter(load.tokens)
    await load.answered(*keys)
    total, longest = sum(load.answers.values()), dict(load.longest_wait)
    await load.close()
    print(
        f"\ntokens in {seconds:.0f} s: {dict(tokens)}, largest to smallest {spread(tokens):.3f}"
        f"\nanswers {total}, all as asked; each of the 200 streams had one or more"
        f"\nlongest waits for a first token: { {k: round(v, 1) for k, v in longest.items()} } s"
        f"\nthe engine ran {min(running):.0f} to {max(running):.0f} of {PLACES} at a time; "
        f"waiting within it: {max(waiting):.0f}"
        f"\nresident MiB of the two, every 3 s: "
        f"{[tuple(round(one) for one in sample) for sample in memory]}"
    )
    assert spread(tokens) <= 1.2
    assert max(waiting) == 0
    assert max(running) <= PLACES
    for early, late in zip(memory[2], memory[-1], strict=True):
        assert late - early < 8


async def test_weights_of_2_to_1_give_shares_of_2_to_1_and_an_idle_key_returns_fairly(
    both: list[AppProcess],
) -> None:
    load = Load(both)
    double, single = make_key(both[0], "double", "weight=2"), make_key(both[0], "single")
    load.open("double", double, 40, answer_tokens=20)
    load.open("single", single, 40, answer_tokens=20)
    await load.settle("single")
    before = await load.hear(4000)
    load.open("idle", make_key(both[0], "idle"), 40, answer_tokens=20)
    await load.settle("idle")
    returned = await load.hear(6000)
    await load.close()
    print(f"\nweights 2:1 gave {dict(before)}; with a key that was idle: {dict(returned)}")
    assert before["double"] / before["single"] == pytest.approx(2, rel=0.15)
    assert returned["idle"] / returned["single"] == pytest.approx(1, rel=0.15)
    assert returned["double"] / returned["single"] == pytest.approx(2, rel=0.15)
