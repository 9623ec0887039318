"""A stand-in for the models' hub, as far as its real client, `hf download`, asks it.

It has one repository, whose files lie in a folder, and wants a token where one is given.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A repository and who may have it; `sent` counts the bytes of each file that went out."""

    repository: str
    folder: Path
    token: str = ""
    address: str = ""
    sent: dict[str, int] = field(default_factory=dict)

    def files(self) -> dict[str, Path]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path for path in paths}


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        api, resolve = (
            f"/api/models/{self.hub.repository}/",
            f"/{self.hub.repository}/resolve/{COMMIT}/",
        )
        if self.hub.token and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            self._send(HTTPStatus.UNAUTHORIZED, b"", {"X-Error-Code": "GatedRepo"}, body=body)
        elif path.startswith(f"{api}revision/"):
            names = sorted(self.hub.files().items())
            siblings = [{"rfilename": name, "size": found.stat().st_size} for name, found in names]
            told = {"id": self.hub.repository, "sha": COMMIT, "siblings": siblings}
            self._send(HTTPStatus.OK, json.dumps(told).encode(), {}, body=body)
        elif path.startswith(f"{api}tree/"):
            names = sorted(self.hub.files().items())
            tree = [
                {"type": "file", "path": name, "size": found.stat().st_size, "oid": _etag(found)}
                for name, found in names
            ]
            self._send(HTTPStatus.OK, json.dumps(tree).encode(), {}, body=body)
        elif path.startswith(resolve) and path.removeprefix(resolve) in self.hub.files():
            name = path.removeprefix(resolve)
            found = self.hub.files()[name]
            content = found.read_bytes()
            start = int((self.headers["Range"] or "bytes=0-")[6:].split("-")[0])
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(found)}"'}
            if body:
                self.hub.sent[name] = self.hub.sent.get(name, 0) + len(content) - start
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status = HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK
            self._send(status, content[start:], headers, body=body)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", {"X-Error-Code": "RepoNotFound"}, body=body)

    def _send(
        self, status: HTTPStatus, content: bytes, headers: dict[str, str], *, body: bool
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def served(hub: Hub, address: str) -> Iterator[Hub]:
    """Serve it meanwhile, at a free port of an address of this machine."""
    handler = type("Answers", (_Answers,), {"hub": hub})
    with ThreadingHTTPServer((address, 0), handler) as server:
        hub.address = f"http://{address}:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()
