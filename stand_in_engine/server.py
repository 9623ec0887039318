"""The process: load, serve, and end on SIGTERM as vLLM 0.32 was seen to."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from stand_in_engine.engine import Engine


class QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers: the shutdown is the engine's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


async def serve(
    app: Starlette, engine: Engine, *, host: str, port: int, timeout: float, keep_alive: int
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        app: The endpoints.
        engine: Drained before the server closes; meanwhile the server answers.
        host: Address to listen on.
        port: Port to listen on.
        timeout: Seconds that requests in flight may take to finish; 0 aborts them.
        keep_alive: Seconds that an idle connection stays open.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        timeout_keep_alive=keep_alive,
        log_level="info",
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
    )
    server = QuietServer(config)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)

    async def end() -> None:
        await told.wait()
        await engine.drain(timeout)
        server.should_exit = True

    ending = asyncio.create_task(end())
    await server.serve()
    ending.cancel()
