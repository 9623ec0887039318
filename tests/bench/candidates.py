"""What stands between a client and the engine in the bench of the agent app, each as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from app_process import AppProcess
from competitors.environments import HERE, python_of
from data_servers import Postgres, RedisServer

from tests.ports import free_port

APP_CORE = 0
READY_SECONDS = 240
MASTER_KEY = "sk-only-for-the-bench"
MOST_TOKENS = 256

Body = Callable[[str], dict[str, Any]]
Token = Callable[[dict[str, Any]], str | None]


@dataclass(frozen=True)
class Candidate:
    """One way to the engine.

    Attributes:
        name: For the table.
        url: Where to post.
        body: Makes a request of a message.
        token: The text of an event's data, "" or None where it has none.
        headers: Of each request.
        pid: Of the process between, None where there is none.
    """

    name: str
    url: str
    body: Body
    token: Token
    headers: dict[str, str]
    pid: int | None = None


def openai_token(data: dict[str, Any]) -> str | None:
    """Text of a chunk of OpenAI's."""
    choices = data.get("choices")
    text: str | None = choices[0]["delta"].get("content") if choices else None
    return text


def simple_token(data: dict[str, Any]) -> str | None:
    """Text of an event of ours, and of the recipe's."""
    return data.get("text")


def openai_body(message: str) -> dict[str, Any]:
    """A request to OpenAI's API."""
    return {
        "model": "demo", "stream": True, "temperature": 0, "max_tokens": MOST_TOKENS,
        "messages": [{"role": "user", "content": message}],
    }  # fmt: skip


@contextmanager
def running(words: list[str], log: Path, health: str, **variables: str) -> Iterator[int]:
    """A server on the app's own core, until it is no longer needed; its process ID."""
    pinned = ["taskset", "-c", str(APP_CORE), *words] if (os.cpu_count() or 1) > 1 else words
    with log.open("wb") as out:
        process = subprocess.Popen(
            pinned, stdout=out, stderr=out, cwd=log.parent, env={**os.environ, **variables},
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_ready(process, health, log)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-5000:]
        with suppress(httpx2.HTTPError):
            if httpx2.get(health, timeout=2, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"not ready after {READY_SECONDS} s\n{log.read_text()[-5000:]}")


def direct(engine: str) -> Candidate:
    """The engine, with nothing between."""
    return Candidate(
        "engine direct", f"{engine}/v1/chat/completions", openai_body, openai_token, {}
    )


@contextmanager
def ours(
    engine: str, folder: Path, postgres: Postgres, redis: RedisServer
) -> Iterator[list[Candidate]]:
    """The agent app, without state and on threads."""
    postgres.make_database("bench_ours")
    model = {"endpoints": [engine], "max_output_tokens": MOST_TOKENS}
    app = AppProcess(
        folder,
        {
            "database": {"host": "127.0.0.1", "port": postgres.port, "name": "bench_ours"},
            "redis": {
                "cache_url": f"redis://127.0.0.1:{redis.port}/0",
                "state_url": f"redis://127.0.0.1:{redis.port}/1",
            },
            "models": {"demo": model},
            "default_model": "demo",
        },
    )
    app.run("migrate")
    key = app.run("keys", "create", "--name", "bench")
    words = [sys.executable, "-m", "agent_app", "serve", "--config", str(app.config)]
    words += ["--port", str(app.port), "--metrics-port", str(app.metrics_port)]
    headers = {"Authorization": f"Bearer {key}"}
    with running(words, folder / "ours.log", f"{app.url}/health", **app.environment) as pid:
        stateless = Candidate(
            "agent app, /v1", f"{app.url}/v1/chat/completions", openai_body, openai_token,
            headers, pid,
        )  # fmt: skip
        thread = Candidate(
            "agent app, /chat on a thread", f"{app.url}/chat", lambda text: {"message": text},
            simple_token, headers, pid,
        )  # fmt: skip
        yield [stateless, thread]


@contextmanager
def litellm(engine: str, folder: Path) -> Iterator[list[Candidate]]:
    """LiteLLM's proxy, one worker, without a database."""
    port, config = free_port(), folder / "litellm.yml"
    model = {"model": "openai/demo", "api_base": f"{engine}/v1", "api_key": "none"}
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "demo", "litellm_params": model}],
                "litellm_settings": {"telemetry": False, "num_retries": 0},
            }
        )
    )
    binary = python_of("litellm").with_name("litellm")
    words = [str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(
        words, folder / "litellm.log", f"{url}/health/liveliness",
        LITELLM_MASTER_KEY=MASTER_KEY, LITELLM_LOCAL_MODEL_COST_MAP="True",
    ) as pid:  # fmt: skip
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        yield [
            Candidate(
                "LiteLLM proxy, /v1", f"{url}/v1/chat/completions", openai_body, openai_token,
                headers, pid,
            )
        ]  # fmt: skip


@contextmanager
def recipe(engine: str, folder: Path, postgres: Postgres) -> Iterator[list[Candidate]]:
    """LangChain's agent under `astream_events`, without state and on threads."""
    postgres.make_database("bench_recipe")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(
        [str(python_of("recipe")), str(HERE / "recipe.py")], folder / "recipe.log",
        f"{url}/health", ENGINE=engine, PORT=str(port), MAX_TOKENS=str(MOST_TOKENS),
        DATABASE=f"host=127.0.0.1 port={postgres.port} user=postgres dbname=bench_recipe",
        LANGSMITH_TRACING="false",
    ) as pid:  # fmt: skip

        def on_a_thread(text: str) -> dict[str, Any]:
            return {"message": text, "thread_id": str(uuid4())}

        yield [
            Candidate(
                "LangChain recipe", f"{url}/chat", lambda text: {"message": text}, simple_token,
                {}, pid,
            ),
            Candidate(
                "LangChain recipe on a thread", f"{url}/chat", on_a_thread, simple_token, {}, pid
            ),
        ]  # fmt: skip
