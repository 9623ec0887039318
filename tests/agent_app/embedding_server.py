"""An embedding endpoint in the test's own process, with a real model: WordLlama's static vectors.

Its weights lie in its wheel; 256 dimensions, good enough to tell a paraphrase from a stranger.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DIMENSIONS = 256


@functools.cache
def model() -> Any:
    import wordllama

    folder = Path(wordllama.__file__).parent  # it looks for its own tokenizer in a cache only
    return wordllama.WordLlama.load(disable_download=True, cache_dir=folder)


class EmbeddingServer:
    """Serves `/v1/embeddings`; a test may let it fail, be slow, or change its model."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.seconds = 0.0
        self.dimensions = DIMENSIONS
        self.texts: list[str] = []
        self.requests = 0
        self.authorization = ""
        self.fail_after: int | None = None  # requests that are answered before it fails

    async def _embed(self, request: Request) -> Response:
        body = await request.json()
        self.requests += 1
        self.authorization = request.headers.get("authorization", "")
        await asyncio.sleep(self.seconds)
        failing = self.fail_after is not None and self.requests > self.fail_after
        if failing or self.status != 200:
            return JSONResponse({"error": {"message": "out of order"}}, 503)
        self.texts += body["input"]
        vectors = await asyncio.to_thread(model().embed, body["input"], norm=True)
        data = [
            {"index": index, "embedding": vector.tolist()[: self.dimensions]}
            for index, vector in enumerate(vectors)
        ]
        # In any order: the index counts.
        return JSONResponse({"object": "list", "data": data[::-1], "model": body["model"]})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["EmbeddingServer"]:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        routes = [Route("/v1/embeddings", self._embed, methods=["POST"])]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=0,
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
