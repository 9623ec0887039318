"""SIGTERM, as vLLM 0.32 was seen to take it (docs of the engine role rest on this)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2

from tests.contract.engines import Engine, started
from tests.contract.test_answers import CHAT, HELLO, asked, stream

EXIT_SECONDS = 180.0  # beyond the longest time that a stream is given below
SILENCE_SECONDS = 20.0
AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"


async def begun(engine: Engine, tokens: int) -> asyncio.Task[list[dict[str, Any]]]:
    """A stream of that many tokens that has given its first."""
    first = asyncio.Event()
    body = asked(HELLO, max_tokens=tokens, ignore_eos=True)
    streaming = asyncio.create_task(stream(engine, body, begun=first))
    await asyncio.wait_for(first.wait(), EXIT_SECONDS)
    return streaming


async def exited(engine: Engine) -> int:
    """The exit status, once the process is gone."""
    return await asyncio.wait_for(asyncio.to_thread(engine.process.wait), EXIT_SECONDS)


async def refused(engine: Engine) -> httpx2.Response:
    """The answer to the first request that is not served any more."""
    async with engine.client() as client:
        while True:
            response = await client.post(CHAT, json=asked(HELLO, max_tokens=1))
            if response.status_code != 200:
                return response
            await asyncio.sleep(0.05)


async def test_with_time_streams_finish_and_new_requests_get_500(kind: str, tmp_path: Path) -> None:
    with started(kind, tmp_path, shutdown_timeout=120, unhurried=True) as engine:
        streaming = await begun(engine, 200)
        engine.terminate()
        refusal = await refused(engine)
        async with engine.client() as client:
            health = await client.get("/health")
        chunks = await streaming
        await exited(engine)
    assert (refusal.status_code, refusal.json()["error"]["message"]) == (500, AFTER_SHUTDOWN)
    assert health.status_code == 200
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1] == {"done": True}


async def last_words(engine: Engine, streaming: asyncio.Task[Any]) -> list[dict[str, Any]] | None:
    """What a stream that SIGTERM cut short still said, or None for vLLM's silence.

    vLLM 0.32 at times never tells the stream, above all on a busy machine, and the process waits
    for the client. SIGKILL after the unit's TimeoutStopSec is the cure.
    """
    try:
        chunks: list[dict[str, Any]] = await asyncio.wait_for(streaming, SILENCE_SECONDS)
    except TimeoutError:
        assert engine.kind == "vllm", engine.tail()
        return None
    await exited(engine)
    assert chunks[-1] == {"done": True}
    return chunks


async def test_when_the_time_is_over_an_error_event_ends_the_stream(
    kind: str, tmp_path: Path
) -> None:
    with started(kind, tmp_path, shutdown_timeout=1, unhurried=True) as engine:
        streaming = await begun(engine, 8000)
        engine.terminate()
        chunks = await last_words(engine, streaming)
    if chunks is not None:
        assert chunks[-2]["error"]["type"] == "InternalServerError"
        assert chunks[-2]["error"]["code"] == 500


async def test_without_time_the_stream_is_aborted(kind: str, tmp_path: Path) -> None:
    with started(kind, tmp_path, shutdown_timeout=0, unhurried=True) as engine:
        streaming = await begun(engine, 8000)
        engine.terminate()
        chunks = await last_words(engine, streaming)
    if chunks is not None:
        assert chunks[-2]["choices"][0]["finish_reason"] == "abort"
