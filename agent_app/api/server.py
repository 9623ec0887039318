"""One process: uvicorn, the metrics port, readiness to systemd, and a drain on SIGTERM."""

import asyncio
import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from agent_app.api.app import create_app
from agent_app.config import Config
from agent_app.errors import ConfigError
from agent_app.observability.logging import configure_logging
from agent_app.observability.notify import notify_systemd

KEEP_ALIVE_SECONDS = 75  # above nginx's 60 s for idle upstream connections, so that it closes first
GOODBYE_SECONDS = 10


class _Server(uvicorn.Server):
    """Uvicorn that drains our runs while it drains its connections."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._drain: asyncio.Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell systemd."""
        await super().startup(sockets)
        notify_systemd("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting; let runs finish or say goodbye; then end."""
        notify_systemd("STOPPING=1")
        self._drain = asyncio.ensure_future(self._app.state.services.drain())
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take the first signal; ending well after it is success, so it is not raised again."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()


def serve(config: Config, *, host: str, port: int, metrics_host: str, metrics_port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: A credential is missing, or a port cannot be bound.
    """
    writer = configure_logging(logging.getLevelNamesMapping()[config.telemetry.log_level.upper()])
    # Bound before anything is claimed in the database: the port names this process there.
    sock = _bind(host, port)
    app = create_app(config, owner=f"{socket.gethostname()}:{port}")
    _serve_metrics(metrics_host, metrics_port)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(config.limits.drain_seconds) + GOODBYE_SECONDS,
        ),
        app,
    )
    try:
        server.run(sockets=[sock])
    finally:
        writer.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it a client's first token
    # waits 40 ms for the acknowledgement of the headers.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            error.strerror or "cannot bind",
            place=f"{host}:{port}",
            cure="free the port or choose another with --port",
        ) from error
    sock.setblocking(False)
    return sock


def _serve_metrics(host: str, port: int) -> None:
    try:
        start_http_server(port, addr=host)
    except OSError as error:
        raise ConfigError(
            error.strerror or "cannot bind",
            place=f"{host}:{port}",
            cure="free the port or choose another with --metrics-port",
        ) from error
