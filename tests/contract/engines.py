"""Starts the engines that keep the contract: the stand-in, and real vLLM on this machine's CPU."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from ops.lab import demo_model, environment

SEATS = 4
CONTEXT = 8192
READY_SECONDS = 300.0
CLIENT_SECONDS = 240.0  # beyond the standstills of a shared machine, which were seen to last 60
PONDEROUS_LAYERS = 16  # some 0.3 billion parameters
ROOT = Path(__file__).resolve().parents[2]
IN_ITS_PLACE = (  # a mount namespace in which the environment lies where it knows itself to be
    'mount -t tmpfs none /opt && mkdir -p {home} && mount --bind -o ro {folder} {home} && exec "$@"'
)


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    kind: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self) -> httpx2.AsyncClient:
        """A client of it."""
        return httpx2.AsyncClient(base_url=self.url, timeout=CLIENT_SECONDS)

    def terminate(self) -> None:
        """SIGTERM, as systemd sends it."""
        self.process.send_signal(signal.SIGTERM)

    def tail(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-50:])


@contextmanager
def started(
    kind: str, folder: Path, *more: str, shutdown_timeout: int = 30, unhurried: bool = False
) -> Iterator[Engine]:
    """An engine of a kind, ready to answer; nothing of it is left afterwards.

    Args:
        kind: `vllm` or `stand-in`.
        folder: For its log and files.
        more: Further flags.
        shutdown_timeout: Seconds that requests have after SIGTERM.
        unhurried: Make tens of tokens a second, as a model of use does. The demo model makes a
            thousand, which starves vLLM's own metrics page and loses its shutdown races.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = demo_model.ensure() if kind == "vllm" else folder
    if unhurried and kind == "vllm":
        model, more = _ponderous(model, folder / "ponderous"), (*more, "--load-format", "dummy")
    elif unhurried:
        more = (*more, "--tokens-per-second", "50")
    command = [
        *(_vllm() if kind == "vllm" else _stand_in()),
        *("serve", str(model), "--served-model-name", "demo"),
        *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(CONTEXT)),
        *("--max-num-seqs", str(SEATS), "--shutdown-timeout", str(shutdown_timeout)),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--dtype", "float32", "--enforce-eager", "--enable-request-id-headers", *more),
    ]
    log = folder / f"{kind}-{port}.log"
    variables = {
        **os.environ,
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "STAND_IN_DIALOGUES": str(demo_model.DIALOGUES),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=variables, cwd=ROOT, start_new_session=True
        )
    engine = Engine(kind, f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_until_ready(engine)
        yield engine
    finally:
        _end(process)


def _ponderous(model: Path, folder: Path) -> Path:
    """The demo model's shape, grown until two cores take their time; it has no weights."""
    folder.mkdir()
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    grown = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": PONDEROUS_LAYERS}
    grown["layer_types"] = ["full_attention"] * PONDEROUS_LAYERS
    (folder / "config.json").write_text(json.dumps(config | grown))
    return folder


def _stand_in() -> list[str]:
    return [sys.executable, "-m", "stand_in_engine"]


def _vllm() -> list[str]:
    environment.ensure()
    home = environment.HOME
    script = IN_ITS_PLACE.format(home=home, folder=environment.folder())
    return ["unshare", "--mount", "sh", "-c", script, "sh", f"{home}/bin/vllm"]


def _wait_until_ready(engine: Engine) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        assert engine.process.poll() is None, engine.tail()
        try:
            httpx2.get(f"{engine.url}/health", timeout=2).raise_for_status()
            return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"not ready after {READY_SECONDS} s\n{engine.tail()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def events(
    response: httpx2.Response, begun: asyncio.Event | None = None
) -> list[dict[str, object]]:
    """Events of a stream; the last of them is `{"done": True}` for `[DONE]`.

    Args:
        response: The stream.
        begun: Set at the first event.
    """
    found: list[dict[str, object]] = []
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            found.append({"done": True} if data == "[DONE]" else json.loads(data))
            if begun is not None:
                begun.set()
    return found
