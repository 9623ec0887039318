"""The app as a process of its own, and a client that reads its streams."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from data_servers import PASSWORD

from tests.ports import free_port

ROOT = Path(__file__).parents[2]

# Processes of the app are forked from one that has imported everything: a start takes a tenth of
# a second instead of one or two, and the process is as killable as any.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["agent_app.api.server", "agent_app.cli"])


_forked: list[BaseProcess] = []


def kill_what_is_left() -> None:
    """Kill what a test began and left behind; beside the next test's apps it would serve too."""
    for process in _forked:
        if process.is_alive():
            process.kill()
            process.join(10)
    _forked.clear()


def _be_the_app(
    arguments: list[str], environment: dict[str, str], out: str, err: str, folder: str
) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    for path, descriptor in ((out, 1), (err, 2)):
        with Path(path).open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = ["agent-app", *arguments]
    from agent_app.cli import main

    main()


@dataclass
class Heard:
    """All events of one stream so far."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    thread_id: str = ""

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [data for found, data in self.events if found == name]

    def text(self) -> str:
        """What a client shows: tokens, less what was withdrawn."""
        shown: dict[str, str] = {}
        for name, data in self.events:
            if name == "token":
                shown[data["message_id"]] = shown.get(data["message_id"], "") + data["text"]
            elif name == "retract":
                shown.pop(data["message_id"], None)
        return "".join(shown.values())


class AppProcess:
    """`agent-app serve` and the other commands, with a configuration of the test's own."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = folder / "config.yml"
        self.config.write_text(yaml.safe_dump(config))
        credentials = folder / "credentials"
        credentials.mkdir(exist_ok=True)
        for name in ("database_password", "database_owner_password", "redis_password"):
            (credentials / name).write_text(PASSWORD)
        for name in ("key_secret", "audit_secret"):
            (credentials / name).write_text("0123456789abcdef0123456789abcdef\n")
        self.environment = {
            **os.environ,
            "AGENT_APP_CREDENTIALS_DIR": str(credentials),
            "PYTHONPATH": str(ROOT),
        }
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = ""
        self.process: BaseProcess | None = None
        self.client = httpx2.AsyncClient(base_url=self.url, timeout=30, trust_env=False)

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command as a person does, for a test that answers it or ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", "agent_app", *arguments, "--config", str(self.config)],
            env=self.environment, cwd=self.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def complete(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with nothing to read from stdin."""
        words = [*arguments, "--config", str(self.config)]
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            process = self._fork(words, out, err)
            process.join(60)
            if process.exitcode is None:
                process.kill()
                pytest.fail(f"no end after 60 s: {words}\n{out.read_text()}{err.read_text()}")
            return subprocess.CompletedProcess(
                words, process.exitcode, out.read_text(), err.read_text()
            )

    def run(self, *arguments: str) -> str:
        done = self.complete(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def _fork(self, arguments: list[str], out: Path, err: Path) -> BaseProcess:
        process = _FORKS.Process(
            target=_be_the_app,
            args=(arguments, self.environment, str(out), str(err), str(self.folder)),
        )
        process.start()
        _forked.append(process)
        return process

    async def start(self) -> None:
        arguments = ["serve", "--config", str(self.config), "--port", str(self.port),
                     "--metrics-port", str(self.metrics_port)]  # fmt: skip
        self.process = self._fork(arguments, self.folder / "log", self.folder / "log")
        for _ in range(1200):
            with contextlib.suppress(httpx2.TransportError):
                if (await self.client.get("/health")).status_code == 200:
                    return
            if not self.process.is_alive():
                break
            await asyncio.sleep(0.02)
        pytest.fail(f"the app did not start:\n{self.log()[-5000:]}")

    def log(self) -> str:
        """What was logged until now; a thread of the app's writes it, a moment after."""
        path = self.folder / "log"
        text, before = path.read_text() if path.exists() else "", None
        while text != before:
            time.sleep(0.05)
            before, text = text, path.read_text() if path.exists() else ""
        return text

    def lines(self) -> list[dict[str, Any]]:
        """The log, which must be JSON to the last line."""
        return [json.loads(line) for line in self.log().splitlines()]

    async def metrics(self) -> str:
        """The page of the metrics port."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await asyncio.to_thread(self.process.join, 10)

    async def end(self) -> int | None:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.terminate()
        await asyncio.to_thread(self.process.join, 30)
        return self.process.exitcode

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @contextlib.asynccontextmanager
    async def streaming(
        self, body: dict[str, Any], path: str = "/chat", *, after: Heard | None = None
    ) -> AsyncIterator[tuple[Heard, AsyncIterator[str]]]:
        """Open a stream; iterate the second value to hear the next event's name.

        With `after` go on, by Last-Event-ID, where that broke.
        """
        heard = after or Heard()
        headers = self.headers()
        if after is not None and after.ids:
            headers["Last-Event-ID"] = after.ids[-1]
        async with self.client.stream("POST", path, json=body, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                pytest.fail(f"{response.status_code}: {response.text}\n{self.log()[-3000:]}")
            heard.thread_id = response.headers["x-thread-id"]
            yield heard, _listen(response, heard)

    async def chat(self, message: str | None = None, **body: Any) -> Heard:
        """Say something and hear the stream to its end."""
        if message is not None:
            body["message"] = message
        async with self.streaming(body) as (heard, events):
            async for _ in events:
                pass
        return heard


async def _listen(response: httpx2.Response, heard: Heard) -> AsyncIterator[str]:
    name = id = ""
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            id = line[4:]
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            heard.events.append((name, json.loads(line[6:])))
            if id:
                heard.ids.append(id)
            id = ""
            yield name
