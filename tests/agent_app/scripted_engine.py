"""An engine in the test's own process: each request is answered as the test says, step by step.

`stand_in_engine` plays whole scripts; here the test holds every token in its hand.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Step = Any


class Hold:
    """A place in a script where the engine waits for the test."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()


class Status:
    """Answer with this HTTP status instead."""

    def __init__(self, status: int) -> None:
        self.status = status


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason}]}


def say(*words: str) -> list[Step]:
    return [*(chunk({"content": word}) for word in words), chunk(reason="stop"), USAGE]


def call_tool(query: str, *, name: str = "search_knowledge") -> list[Step]:
    function = {"name": name, "arguments": json.dumps({"query": query})}
    # The same id every time: the app must not rely on the engine's ids.
    delta = {"tool_calls": [{"index": 0, "id": "call_0", "function": function}]}
    return [chunk(delta), chunk(reason="tool_calls"), USAGE]


USAGE = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
ABORT = chunk(reason="abort")
ERROR_EVENT = {"error": {"message": "EngineCore died", "code": 500}}
CUT = "cut the connection"

Script = Callable[[dict[str, Any]], list[Step]]


class ScriptedEngine:
    """Serves scripts in the order they were queued, then whatever `default` says."""

    def __init__(self) -> None:
        self.queue: list[list[Step]] = []
        self.default: Script = lambda _body: say("ok")
        self.requests: list[dict[str, Any]] = []
        self.request_ids: list[str] = []
        self.in_flight = 0
        self.probes = 0
        self.url = ""
        self._app = Starlette(
            routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])]
        )

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        if body["max_tokens"] == 1 and body["messages"][-1]["content"] == "ping":
            self.probes += 1
            return StreamingResponse(self._play(say("p")), media_type="text/event-stream")
        self.requests.append(body)
        self.request_ids.append(request.headers["x-request-id"])
        steps = self.queue.pop(0) if self.queue else self.default(body)
        if steps and isinstance(steps[0], Status):
            return JSONResponse({"error": {"message": "secret detail"}}, steps[0].status)
        return StreamingResponse(self._play(steps), media_type="text/event-stream")

    async def _play(self, steps: list[Step]) -> AsyncIterator[bytes]:
        self.in_flight += 1
        try:
            for step in steps:
                if isinstance(step, Hold):
                    step.reached.set()
                    await step.release.wait()
                elif step is CUT:
                    raise ConnectionResetError
                else:
                    yield f"data: {json.dumps(step)}\n\n".encode()
                    await asyncio.sleep(0)
            yield b"data: [DONE]\n\n"
        finally:
            self.in_flight -= 1

    async def idle(self, seconds: float) -> None:
        """Wait until no stream is under way."""
        async with asyncio.timeout(seconds):
            while self.in_flight:
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["ScriptedEngine"]:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        config = uvicorn.Config(
            self._app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0
        )
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
        task = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield self
        finally:
            server.should_exit = True
            await task
