"""Pure ASGI middleware: what every request passes on its way in and out."""

import re
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_app.api.errors import make_body
from agent_app.observability import metrics, tracing
from agent_app.observability.arrival import note_arrival
from agent_app.observability.labels import method_label, route_label

QUIET_ROUTES = frozenset({"/health", "/ready"})
_TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})
_CORRELATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")

log = structlog.get_logger("agent_app.access")


def is_correlation_id(text: str) -> bool:
    """Return whether a client's request ID is fit for logs and headers."""
    return _CORRELATION.fullmatch(text) is not None


class RequestLog:
    """Count, time, trace and log each request when it is over, under its route's template.

    Args:
        app: What comes next.
        accept_traceparent: Go on with the trace that a client names.
    """

    def __init__(self, app: ASGIApp, *, accept_traceparent: bool = False) -> None:
        self._app = app
        self._accept_traceparent = accept_traceparent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        started = note_arrival()
        seen = _Seen(send)
        method = method_label(scope)
        with tracing.span(
            method, {"http.request.method": method}, kind="server", carrier=self._carrier(scope)
        ) as span:
            try:
                await self._app(scope, seen.receive_from(receive), seen.send)
            finally:
                route = route_label(scope)
                span.name(f"{method} {route}")
                span.set({"http.route": route, "http.response.status_code": seen.status})
                if seen.status >= 500:
                    span.fail(str(seen.status))
                _note(route, method, seen, time.monotonic() - started)

    def _carrier(self, scope: Scope) -> dict[str, str] | None:
        if not self._accept_traceparent:
            return None
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _TRACE_HEADERS
        }


class _Seen:
    """What went over a request's connection."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 500
        self.bytes_in = 0
        self.bytes_out = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        """Pass a message of the answer on."""
        if message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        elif message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def receive_from(self, receive: Receive) -> Receive:
        """Return a `receive` that counts the body."""

        async def count() -> Message:
            message = await receive()
            self.bytes_in += len(message.get("body", b""))
            return message

        return count


def _note(route: str, method: str, seen: _Seen, seconds: float) -> None:
    metrics.REQUESTS.labels(route, method, str(seen.status)).inc()
    metrics.REQUEST_SECONDS.labels(route, method).observe(seconds)
    if route in QUIET_ROUTES and seen.status < 500:
        return
    log.info(
        "request",
        route=route,
        method=method,
        status=seen.status,
        seconds=round(seconds, 4),
        bytes_in=seen.bytes_in,
        bytes_out=seen.bytes_out,
        complete=seen.complete,
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
            body = make_body("body_too_large", "the body is too large", retryable=False, status=413)
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
