"""A webhook and a mail server that write down what Alertmanager sends."""

from __future__ import annotations

import contextlib
import email
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """What was posted, and the Authorization that came with it."""

    port: int = 0
    posts: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)

    def told(self, status: str, name: str) -> list[dict[str, Any]]:
        """Return the messages of an alert that fires or is resolved."""
        return [
            post
            for post in self.posts
            if any(
                a["labels"]["alertname"] == name and a["status"] == status for a in post["alerts"]
            )
        ]


@contextlib.contextmanager
def webhook(address: str = "127.0.0.1") -> Iterator[Webhook]:
    heard = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            heard.posts.append(json.loads(self.rfile.read(size)))
            heard.authorizations.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((address, 0), Handler) as server:
        heard.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield heard
        server.shutdown()


@dataclass
class Mailbox:
    """Mails that arrived."""

    port: int = 0
    mails: list[Message] = field(default_factory=list)

    def told(self, status: str, name: str) -> list[Message]:
        """Return the mails of an alert that fires or is resolved, by their subject."""
        resolved = status == "resolved"
        subjects = [(str(mail["Subject"]), mail) for mail in self.mails]
        return [m for s, m in subjects if name in s and s.startswith("[resolved]") == resolved]


@contextlib.contextmanager
def mail_server(address: str = "127.0.0.1") -> Iterator[Mailbox]:
    """Serve as much of SMTP (RFC 5321) as a client without TLS needs."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(line.encode() + b"\r\n")

        def handle(self) -> None:
            self.say("220 test")
            while line := self.rfile.readline().decode().strip():
                verb = line[:4].upper()
                if verb == "DATA":
                    self.say("354 go on")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    box.mails.append(email.message_from_bytes(b"".join(lines)))
                self.say("221 bye" if verb == "QUIT" else "250 ok")
                if verb == "QUIT":
                    return

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server((address, 0), Handler) as server:
        box.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield box
        server.shutdown()
