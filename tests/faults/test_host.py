"""The host itself fails: its disk is full, its log is stuck, its files are used up."""

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from app_process import AppProcess
from scripted_engine import ScriptedEngine
from vitals import figure, held, settles

LIMIT = 64


@contextlib.asynccontextmanager
async def serving(app: AppProcess, output: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The app with its standard output in an open file of ours."""
    words = ["serve", "--port", str(app.port), "--metrics-port", str(app.metrics_port)]
    # fork, not the fork server: this output must be the process's own from its first line on
    process = subprocess.Popen(
        [os.sys.executable, "-m", "agent_app", *words, "--config", str(app.config)],
        env=app.environment, cwd=app.folder, stdout=output, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if (await app.client.get("/health")).is_success:
                        break
                assert process.poll() is None
                await asyncio.sleep(0.05)
        yield process
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()


async def dropped(app: AppProcess, reason: str) -> float:
    return figure(await app.metrics(), f'agent_app_log_lines_dropped_total{{reason="{reason}"}}')


async def test_a_full_disk_for_logs_costs_log_lines_and_no_request(
    prepared: AppProcess, engine: ScriptedEngine
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with serving(prepared, full):
            for number in range(5):
                assert (await prepared.chat(f"Hello {number}.")).names()[-1] == "done"
            await asyncio.sleep(0.2)
            assert await dropped(prepared, "disk_full") >= 5
    finally:
        os.close(full)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_log_goes_on_whole_when_its_disk_has_room_again(
    prepared: AppProcess, engine: ScriptedEngine, small_disk: Path
) -> None:
    log, ballast = small_disk / "log", small_disk / "ballast"
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with serving(prepared, output):
        with contextlib.suppress(OSError):
            ballast.write_bytes(b"x" * 65_536)
        for number in range(60):
            assert (await prepared.chat(f"Hello {number}.")).names()[-1] == "done"
        assert await dropped(prepared, "disk_full") > 0
        ballast.unlink()
        await prepared.client.get(
            "/threads", headers={**prepared.headers(), "X-Request-ID": "room-again-1"}
        )
        await asyncio.sleep(0.3)
        assert '"request_id": "room-again-1"' in log.read_text().splitlines()[-1]
    os.close(output)


async def test_a_stuck_reader_of_the_log_holds_nobody_up(
    prepared: AppProcess, engine: ScriptedEngine
) -> None:
    reading, writing = os.pipe()
    async with serving(prepared, writing):
        os.close(writing)
        for _ in range(8):  # far more than a pipe holds
            await asyncio.gather(*(prepared.client.get("/threads") for _ in range(50)))
        assert (await prepared.chat("Hello.")).names()[-1] == "done"
        os.set_blocking(reading, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(reading, 1 << 20):
                await asyncio.sleep(0.02)
    os.close(reading)


async def test_no_files_left_refuses_newcomers_and_passes(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    assert app.process is not None and app.process.pid is not None
    await app.chat("Hello.")
    before = await held(app)
    most = before.files + 10
    resource.prlimit(app.process.pid, resource.RLIMIT_NOFILE, (most, most))
    crowd = []
    try:
        for _ in range(LIMIT):
            sock = socket.create_connection(("127.0.0.1", app.port), timeout=2)
            crowd.append(sock)
        await asyncio.sleep(1)
        # A connection that is there already is served.
        crowd[0].sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.to_thread(crowd[0].recv, 100)).startswith(b"HTTP/1.1 200")
    finally:
        for sock in crowd:
            sock.close()
    resource.prlimit(app.process.pid, resource.RLIMIT_NOFILE, (most, most))
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(httpx2.TransportError, AssertionError):
                if (await app.client.get("/health", timeout=2)).is_success:
                    break
            await asyncio.sleep(0.2)
    assert (await app.chat("Hello again.")).names()[-1] == "done"
    await settles(app, before)
