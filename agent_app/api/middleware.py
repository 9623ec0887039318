"""Pure ASGI middleware: what every request passes on its way in and out."""

import re
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_app.observability import metrics

QUIET_ROUTES = frozenset({"/health", "/ready"})
_CORRELATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")

log = structlog.get_logger("agent_app.access")


def is_correlation_id(text: str) -> bool:
    """Return whether a client's request ID is fit for logs and headers."""
    return _CORRELATION.fullmatch(text) is not None


class RequestLog:
    """Count and log each request when it is over, under its route's template."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            metrics.REQUESTS.labels(route, scope["method"], str(status)).inc()
            if route not in QUIET_ROUTES or status >= 500:
                seconds = round(time.perf_counter() - started, 4)
                log.info(
                    "request", route=route, method=scope["method"], status=status, seconds=seconds
                )


class BodyLimit:
    """Refuse bodies beyond a size, announced or not.

    Args:
        app: What comes next.
        most: Bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body as it comes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._most:
            body = {"error": {"code": "body_too_large", "message": "the body is too large"}}
            await JSONResponse(body, status_code=413)(scope, receive, send)
            return
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise HTTPException(413, "the body is too large")
            return message

        await self._app(scope, count, send)
