"""Clients that do not read, vanish, idle by the thousand, or come all at once."""

import asyncio
import json
import socket
import time
from collections import Counter
from typing import Any

import pytest
from app_process import AppProcess
from scripted_engine import Hold, ScriptedEngine, chunk, say
from vitals import figure, held, recovers, settles

WORDS = 3000


def open_stream(app: AppProcess, message: str) -> socket.socket:
    """Send a turn over a socket with a small window, and read nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", app.port))
    body = json.dumps({"message": message}).encode()
    head = (
        f"POST /chat HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {app.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sock.sendall(head.encode() + body)
    return sock


async def test_a_client_that_does_not_read_costs_bounded_memory_and_ends_with_its_line(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    await app.chat("Hello.")
    before, memory = await held(app), await resident(app)
    engine.default = lambda _body: say(*["a word and more of it "] * WORDS)
    socks = [open_stream(app, f"Say much {number}.") for number in range(5)]
    await asyncio.sleep(3)
    assert await resident(app) - memory < 60_000_000
    engine.default = lambda _body: say("ok")
    assert (await app.chat("I read.")).names()[-1] == "done"
    for sock in socks:
        sock.close()
    await settles(app, before)


async def resident(app: AppProcess) -> float:
    return figure(await app.metrics(), "process_resident_memory_bytes")


@pytest.mark.parametrize("way", ["reset", "half closed"])
async def test_a_client_that_vanishes_leaves_nothing_behind(
    app: AppProcess, engine: ScriptedEngine, way: str
) -> None:
    await app.chat("Hello.")
    before = await held(app)
    holds = [Hold() for _ in range(5)]
    engine.queue = [[chunk({"content": "Half"}), hold] for hold in holds]
    socks = [open_stream(app, f"Go on {number}.") for number in range(5)]
    for hold in holds:
        async with asyncio.timeout(10):
            await hold.reached.wait()
    for sock in socks:
        if way == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        else:
            sock.shutdown(socket.SHUT_WR)
    await engine.idle(seconds=10)
    await settles(app, before)
    for sock in socks:
        sock.close()


async def test_a_thousand_idle_connections_slow_nobody(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    await app.chat("Hello.")
    before = await held(app)
    idle = [await asyncio.open_connection("127.0.0.1", app.port) for _ in range(1000)]
    began = time.monotonic()
    assert (await app.client.get("/health")).is_success
    assert (await app.chat("Hello.")).names()[-1] == "done"
    assert time.monotonic() - began < 3
    for _, writer in idle:
        writer.close()
    await settles(app, before)


async def test_a_flood_is_answered_or_refused_clearly_and_passes(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["limits"]["runs"] = 20
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    await app.chat("Hello.")
    before = await held(app)
    engine.default = lambda _body: say(*["word "] * 50)

    async def turn(number: int) -> str:
        response = await app.client.post(
            "/chat", json={"message": f"{number}", "stream": False}, headers=app.headers(),
            timeout=60,
        )  # fmt: skip
        if response.status_code == 200:
            assert response.json()["message"]["content"] == "word " * 50
            return "done"
        assert response.headers["retry-after"], response.text
        return str(response.json()["error"]["code"])

    found = Counter(await asyncio.gather(*(turn(number) for number in range(300))))
    assert found["done"] >= 20
    assert set(found) <= {"done", "overloaded", "database_unavailable"}, found
    assert await recovers(app, seconds=5) < 5
    # Kept on purpose: 20 each to PostgreSQL, to the engine and to this client.
    await settles(app, before, connections=60)
    assert await app.end() == 0
    await app.client.aclose()
