"""Serve a bundle to the hosts of a closed site.

Plain HTTP is enough: hosts trust apt's signatures and the locks' hashes, never the connection.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ops.bundle.site import SERVED
from ops.errors import OpsError


class Handler(SimpleHTTPRequestHandler):
    """Files of the folders that hosts need; no listings, nothing else."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rackhand-bundle", ""
    timeout = 60

    def send_head(self):  # type: ignore[no-untyped-def]
        """Refuse what is no file of a served folder."""
        path = Path(self.translate_path(self.path)).resolve()
        root = Path(self.directory).resolve()
        served = any(path.is_relative_to(root / name) for name in SERVED)
        if not served or not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def log_message(self, *_: object) -> None:
        """Say nothing of each file."""


def server(bundle: Path, address: str, port: int) -> ThreadingHTTPServer:
    """A server that is bound and not yet serving.

    Raises:
        OpsError: The address is not this machine's, or the port is taken.
    """
    try:
        made = ThreadingHTTPServer((address, port), partial(Handler, directory=str(bundle)))
    except OSError as error:
        raise OpsError(
            f"Cannot listen: {error.strerror}",
            place=f"{address}:{port}",
            cure="name an address of this machine and a free port: --listen, --port",
        ) from error
    made.daemon_threads = True
    return made
