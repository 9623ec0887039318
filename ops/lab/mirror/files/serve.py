"""Serve a folder by HTTP, as a package mirror does: connections stay open, nothing is cached."""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    """Answers as long as the client asks; the folder may be exchanged between two requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        """Send a file whatever the client has: another state's file may be older than it."""
        del self.headers["If-Modified-Since"]
        super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log what is missing and nothing else."""
        if "404" in map(str, arguments):
            super().log_message(format, *arguments)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 80), partial(Handler, directory=sys.argv[1])).serve_forever()
