"""Runs on a host that has a revision: hands its files to those hosts that are to have them.

Read-only HTTPS as a transient unit without rights (`peer.py`), for a while: it ends by itself when
nobody asked for a time, and at its deadline at the latest. Standard library of the host's Python.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ops.weights.manifest import CHUNK, MANIFEST

SOCKET_SECONDS = 60.0
RANGE = re.compile(r"bytes=(\d+)-$")


class Server(ThreadingHTTPServer):
    """Lets in by address, by TLS and by token, and knows no file but those of the manifest."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, values: dict[str, Any], context: ssl.SSLContext) -> None:
        self.folder = Path(values["path"])
        self.token: str = values["token"]
        self.allowed = set(values["allowed"])
        self.context = context
        self.asked = time.monotonic()
        manifest = self.folder / MANIFEST
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        self.sizes = {name: int(entry["size"]) for name, entry in files.items()}
        self.sizes[MANIFEST] = manifest.stat().st_size
        if ":" in values["address"]:
            self.address_family = socket.AF_INET6
        super().__init__((values["address"], values["port"]), Handler)

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Refuse whoever is not one of the hosts, where systemd's own filter does not."""
        return client_address[0] in self.allowed

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """A peer that goes away in the middle is no event: it comes back and asks for the rest."""
        print(f"{client_address[0]}: {sys.exc_info()[1]!r}", file=sys.stderr, flush=True)


class Handler(BaseHTTPRequestHandler):
    """GET /<token>/<file>, from a place on."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS
    sys_version = ""

    def setup(self) -> None:
        """Speak TLS, in the connection's own thread: one that dawdles holds nobody up."""
        self.request.settimeout(SOCKET_SECONDS)
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        """Close what `setup` opened; the server itself only knows the socket below."""
        try:
            super().finish()
        finally:
            self.request.close()

    def do_GET(self) -> None:
        """Send a file, or the rest of it."""
        self.server.asked = time.monotonic()
        token, _, name = unquote(self.path).lstrip("/").partition("/")
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        size = self.server.sizes.get(name) if known else None
        if size is None:
            return self.refuse(HTTPStatus.NOT_FOUND)
        asked = RANGE.match(self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if start > size:
            return self.refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        try:
            handle = os.open(self.server.folder / name, os.O_RDONLY)
        except OSError:
            return self.refuse(HTTPStatus.GONE)
        with os.fdopen(handle, "rb", buffering=0) as stream:
            if os.fstat(handle).st_size != size:
                return self.refuse(HTTPStatus.GONE)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
            self.send_header("Content-Length", str(size - start))
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            stream.seek(start)
            while chunk := stream.read(CHUNK):
                self.wfile.write(chunk)
                self.server.asked = time.monotonic()
        return None

    def refuse(self, status: HTTPStatus) -> None:
        """Say no, and nothing of why."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """The journal gets who and how, never the path: the token is in it."""
        del size
        print(f"{self.client_address[0]}: {getattr(code, 'value', code)}", flush=True)

    def log_message(self, *_words: Any) -> None:
        """Nothing else is logged, for the same reason."""


def end_when_idle(server: Server, idle: float, deadline: float) -> None:
    """Shut down when nobody asked for a while, or at the deadline."""
    while time.monotonic() - server.asked < idle and time.time() < deadline:
        time.sleep(min(1.0, idle / 4))
    server.shutdown()


def tell_systemd() -> None:
    """Say that it listens (sd_notify), where systemd asked."""
    if address := os.environ.get("NOTIFY_SOCKET", ""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            told.sendall(b"READY=1")


def main(values: dict[str, Any]) -> None:
    """Serve until nobody asks any more."""
    credentials = Path(os.environ["CREDENTIALS_DIRECTORY"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(values["certificate"], credentials / "key")
    server = Server(values, context)
    limits = (server, float(values["idle_seconds"]), float(values["deadline"]))
    threading.Thread(target=end_when_idle, args=limits, daemon=True).start()
    tell_systemd()
    server.serve_forever()
