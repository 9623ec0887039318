"""The remediator's door on the loopback: Alertmanager's webhook, `/health` and `/metrics`."""

from __future__ import annotations

import hmac
import json
import queue
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ops.errors import InputError
from ops.remedy.alert import MOST_BYTES, Alert, read_webhook
from ops.remedy.records import Record
from ops.remedy.remediator import Tally

READ_SECONDS = 10.0
MOST_WAITING = 100
"""Webhooks that wait; what comes on top is refused, and Alertmanager tells it again."""


class Metrics(Tally):
    """What Prometheus sees of the remediator; also told what happens, as `Tally`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = self.registry
        self._decisions = Counter(
            "remediator_decisions", "Decisions that were written down",
            ["verdict", "action", "code"], registry=of,
        )  # fmt: skip
        self._actions = Counter(
            "remediator_actions", "Actions that ended", ["action", "outcome"], registry=of
        )
        self.webhooks = Counter(
            "remediator_webhooks", "Webhooks by HTTP status", ["status"], registry=of
        )
        self.busy = Gauge("remediator_busy", "An action is being carried out", registry=of)
        self.paused = Gauge("remediator_paused", "The kill switch is pulled", registry=of)
        self.open = Gauge("remediator_open_records", "Actions without an end", registry=of)
        self.alive = Gauge(
            "remediator_last_round_timestamp_seconds", "When it last looked", registry=of
        )
        self.mode = Gauge("remediator_mode_info", "The policy's mode", ["mode"], registry=of)
        self.alertmanager = Gauge(
            "remediator_alertmanager_up", "Alertmanager answered the last question", registry=of
        )

    def decided(self, record: Record) -> None:
        """A decision was written down."""
        self._decisions.labels(record.verdict, record.action, record.code).inc()

    def ended(self, record: Record) -> None:
        """An action ended."""
        self._actions.labels(record.action, record.outcome).inc()


class Door(ThreadingHTTPServer):
    """Takes webhooks into a queue.

    Args:
        address: Where it listens.
        token: What a webhook's Authorization has to say.
        metrics: What `/metrics` shows.
        health: What `/health` shows, and whether that is well.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        token: str,
        metrics: Metrics,
        health: Callable[[], tuple[bool, dict[str, Any]]],
    ) -> None:
        self.token = token
        self.metrics = metrics
        self.health = health
        self.alerts: queue.Queue[tuple[Alert, ...]] = queue.Queue(MOST_WAITING)
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Door
    timeout = READ_SECONDS
    server_version = "remediator"
    sys_version = ""

    def do_GET(self) -> None:
        """`/health` and `/metrics`."""
        if self.path == "/metrics":
            page = generate_latest(self.server.metrics.registry)
            self._answer(200, page, CONTENT_TYPE_LATEST)
        elif self.path == "/health":
            well, told = self.server.health()
            self._answer(200 if well else 503, json.dumps(told).encode())
        else:
            self._answer(404)

    def do_POST(self) -> None:
        """A webhook."""
        status, words = self._webhook()
        self.server.metrics.webhooks.labels(status).inc()
        self._answer(status, json.dumps({"detail": words}).encode())

    def _webhook(self) -> tuple[int, str]:
        refused = self._refusal()
        if refused:
            return refused
        try:
            alerts = read_webhook(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.alerts.put_nowait(alerts)
        except InputError as error:
            return 400, error.message
        except TimeoutError:
            return 408, "the body did not come"
        except queue.Full:
            return 503, "too many wait"
        return 200, f"{len(alerts)} alert(s) taken in"

    def _refusal(self) -> tuple[int, str] | None:
        """Why a webhook is refused before its body is read."""
        if self.path not in ("/", "/alerts"):
            return 404, "not here"
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            return 401, "the bearer token is missing or another"
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return 411, "Content-Length is missing"
        if len(length) > 10 or int(length) > MOST_BYTES:
            return 413, f"{MOST_BYTES} bytes at most"
        return None

    def _answer(self, status: int, body: bytes = b"", kind: str = "application/json") -> None:
        self.close_connection = True  # an unread body is not the next request
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: Any) -> None:
        """Say nothing: decisions are logged, requests are counted."""
