"""The door on the loopback, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from test_alert_and_policy import BODY

from ops.remedy import door
from ops.remedy.door import Door, Metrics

TOKEN = "a-token"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(door.Handler, "timeout", 0.5)
    monkeypatch.setattr(door, "MOST_WAITING", 2)
    made = Door(("127.0.0.1", 0), TOKEN, Metrics(), lambda: (True, {"status": "ok"}))
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(
    opened: Door, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    line = http.client.HTTPConnection(*opened.server_address[:2], timeout=5)
    line.request(method, path, body or None, headers)
    answer = line.getresponse()
    return answer.status, answer.read()


def post(opened: Door, body: Any = BODY, token: str = f"Bearer {TOKEN}", path: str = "/") -> int:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(opened, "POST", path, text, Authorization=token)[0]


def test_a_webhook_is_taken_in(opened: Door) -> None:
    assert post(opened) == 200
    (alert,) = opened.alerts.get_nowait()
    assert alert.name == "GpuFellOff"


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer b-token", TOKEN, "Bearer \xe9"])
def test_without_the_token_nothing_is_taken_in(opened: Door, token: str) -> None:
    assert post(opened, token=token) == 401
    assert opened.alerts.empty()


def test_what_is_no_webhook_is_refused(opened: Door) -> None:
    assert post(opened, b"[" * 1000) == 400
    assert post(opened, path="/etc/passwd") == 404
    assert ask(opened, "GET", "/alerts")[0] == 404
    assert opened.alerts.empty()


def raw(opened: Door, text: bytes) -> bytes:
    with socket.create_connection(opened.server_address[:2], timeout=5) as line:
        line.sendall(text)
        return line.recv(1 << 16)


HEAD = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"\r\n", b" 411 "),
        (b"Content-Length: -5\r\n\r\n", b" 411 "),
        (b"Content-Length: 99999999999999999999\r\n\r\n", b" 413 "),
        (b"Content-Length: 2000000\r\n\r\n", b" 413 "),
        (b"Content-Length: 500\r\n\r\n{", b" 408 "),
    ],
)
def test_a_body_that_lies_about_itself_is_refused(opened: Door, rest: bytes, status: bytes) -> None:
    assert status in raw(opened, HEAD + rest).splitlines()[0]
    assert post(opened) == 200, "the door still stands"


def test_more_than_can_wait_is_refused_and_told_again(opened: Door) -> None:
    opened.alerts.maxsize = 2
    assert [post(opened) for _ in range(3)] == [200, 200, 503]


def test_health_and_metrics_tell(opened: Door) -> None:
    post(opened)
    assert ask(opened, "GET", "/health") == (200, b'{"status": "ok"}')
    status, page = ask(opened, "GET", "/metrics")
    assert status == 200
    assert b'remediator_webhooks_total{status="200"} 1.0' in page
    opened.health = lambda: (False, {"status": "late"})
    assert ask(opened, "GET", "/health")[0] == 503
