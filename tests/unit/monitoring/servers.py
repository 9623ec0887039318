"""Real servers of the pinned distribution's packages, for tests without a host."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.ports import free_port

START_SECONDS = 30


@contextlib.contextmanager
def serving(command: list[str], url: str, log: Path) -> Iterator[str]:
    """Run a server until the block is left; the URL answers when it is entered."""
    if not shutil.which(command[0]):
        pytest.fail(f"{command[0]} is missing; cure: python3 scripts/bootstrap.py tests")
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{url}/-/ready", timeout=5, trust_env=False).status_code == 200:
                    break
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def prometheus_server(config: Path, *arguments: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    folder = config.parent
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={url.removeprefix('http://')}", *arguments]
    with serving(command, url, folder / "prometheus.log"):
        yield url


@contextlib.contextmanager
def alertmanager_server(config: Path, *arguments: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    folder = config.parent
    command = ["prometheus-alertmanager", f"--config.file={config}"]
    command += [f"--storage.path={folder / 'alerts'}", "--cluster.listen-address="]
    command += [f"--web.listen-address={url.removeprefix('http://')}", *arguments]
    with serving(command, url, folder / "alertmanager.log"):
        yield url
