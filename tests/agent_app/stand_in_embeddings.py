"""A stand-in for an embeddings endpoint: words hashed into a vector, so likeness is shared words.

It is deterministic and knows no meaning. That suits these tests: what is alike to it may mean the
opposite, as with real models, and what decides must be the guards and the model.
"""

import asyncio
import contextlib
import hashlib
import re
import socket
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DIMENSIONS = 64


def vector(text: str) -> list[float]:
    parts = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        parts[hashlib.sha256(word.encode()).digest()[0] % DIMENSIONS] += 1.0
    return parts


class StandInEmbeddings:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200
        self.url = ""

    async def _embed(self, request: Request) -> Response:
        body = await request.json()
        if self.status != 200:
            return JSONResponse({"error": "down"}, self.status)
        self.texts += body["input"]
        data = [{"index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])]
        return JSONResponse({"object": "list", "data": data, "model": body["model"]})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["StandInEmbeddings"]:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        app = Starlette(routes=[Route("/v1/embeddings", self._embed, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
        task = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield self
        finally:
            server.should_exit = True
            await task
