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

    def __init__(self, status: int, message: str = "secret detail") -> None:
        self.status = status
        self.message = message


class Pause:
    """A rest of so many seconds, as an engine takes between tokens."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason}]}


def say(*words: str) -> list[Step]:
    return [*(chunk({"content": word}) for word in words), chunk(reason="stop"), USAGE]


def call_tool(query: str, *, name: str = "search_knowledge") -> list[Step]:
    function = {"name": name, "arguments": json.dumps({"query": query})}
    # The same id every time: the app must not rely on the engine's ids.
    delta = {"tool_calls": [{"index": 0, "id": "call_0", "function": function}]}
    return [chunk(delta), chunk(reason="tool_calls"), USAGE]


def call_tools(*calls: tuple[str, Any]) -> list[Step]:
    """Call tools by name, with arguments as a value or, to be as odd as one likes, as a text."""
    deltas = [
        {
            "index": index,
            "id": f"call_{index}",
            "function": {
                "name": name,
                "arguments": given if isinstance(given, str) else json.dumps(given),
            },
        }
        for index, (name, given) in enumerate(calls)
    ]
    return [chunk({"tool_calls": deltas}), chunk(reason="tool_calls"), USAGE]


def counted(
    delta: dict[str, Any] | None = None, reason: str | None = None, *, prompt: int, made: int
) -> dict[str, Any]:
    """A chunk with the usage so far, as vLLM sends it where it is asked to."""
    usage = {"prompt_tokens": prompt, "completion_tokens": made}
    return {**chunk(delta, reason), "usage": usage}


def respond(*words: str, end: str = "completed") -> list[Step]:
    """An answer of `/v1/responses`, as vLLM streams it: 20 tokens of prompt, one a word."""
    text = {"type": "output_text", "text": "".join(words), "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "demo", "tools": [],
            "tool_choice": "auto", "parallel_tool_calls": True}  # fmt: skip
    count = len(words)
    usage = {"input_tokens": 20, "output_tokens": count, "total_tokens": 20 + count,
             "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    events: list[Step] = [
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}}
    ]
    events += [{"type": "response.output_text.delta", "delta": w, **place} for w in words]
    whole = {**head, "status": end, "output": [{**message, "content": [text]}], "usage": usage}
    events.append({"type": f"response.{end}", "response": whole})
    return [{**event, "sequence_number": n} for n, event in enumerate(events)]


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
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.probes = 0
        self.url = ""
        self._app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/responses", self._respond, methods=["POST"]),
            ]
        )

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        if body["max_tokens"] == 1 and body["messages"][-1].get("content") == "ping":
            self.probes += 1
            return StreamingResponse(self._play(say("p")), media_type="text/event-stream")
        self.requests.append(body)
        self.request_ids.append(request.headers["x-request-id"])
        self.headers.append(dict(request.headers))
        steps = self.queue.pop(0) if self.queue else self.default(body)
        if steps and isinstance(steps[0], Status):
            error = {"message": steps[0].message, "type": "BadRequestError", "code": 400}
            return JSONResponse({"error": error}, steps[0].status)
        return StreamingResponse(self._play(steps), media_type="text/event-stream")

    async def _respond(self, request: Request) -> Response:
        """`/v1/responses`: the queue's next steps, as named events."""
        self.requests.append(await request.json())
        self.request_ids.append(request.headers["x-request-id"])
        steps = self.queue.pop(0) if self.queue else respond("ok")
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
                elif isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif step is CUT:
                    raise ConnectionResetError
                else:
                    named = f"event: {step['type']}\n" if "type" in step else ""
                    yield f"{named}data: {json.dumps(step)}\n\n".encode()
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
