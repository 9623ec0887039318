"""A webhook's other end, in the test's own process."""

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from scripted_engine import Hold
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.ports import free_port


class Receiver:
    """Answers the statuses it was given and then 200; holds where it was told to."""

    def __init__(self) -> None:
        self.port = free_port()
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.hold: Hold | None = None
        self.certificate: tuple[str, str] | None = None
        """Files of a certificate and its key, where it speaks TLS."""
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self._app = Starlette(routes=[Route("/{path:path}", self._take, methods=["GET", "POST"])])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.heard]

    def ids(self) -> list[str]:
        return [headers["x-webhook-id"] for headers, _ in self.heard]

    def assert_signed(self, secret: str) -> None:
        for headers, body in self.heard:
            text = headers["x-webhook-timestamp"].encode() + b"." + body
            wanted = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
            assert headers["x-webhook-signature"] == f"sha256={wanted}"

    async def _take(self, request: Request) -> Response:
        self.heard.append((dict(request.headers), await request.body()))
        if self.hold is not None:
            self.hold.reached.set()
            await self.hold.release.wait()
        status = self.statuses.pop(0) if self.statuses else 200
        return Response(status_code=status, headers=self.headers)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        certificate, key = self.certificate or (None, None)
        server = uvicorn.Server(
            uvicorn.Config(
                self._app, port=self.port, log_level="critical", lifespan="off",
                ssl_certfile=certificate, ssl_keyfile=key,
            )
        )  # fmt: skip
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            if self.hold is not None:
                self.hold.release.set()
            server.should_exit = True
            await task


async def arrived(sql: Any, seconds: float = 15) -> None:
    """Wait until nothing is left to deliver."""
    async with asyncio.timeout(seconds):
        while sql.execute(
            "SELECT count(*) FROM app.webhooks WHERE delivered_at IS NULL AND given_up_at IS NULL"
        ).fetchone() != (0,):
            await asyncio.sleep(0.05)
