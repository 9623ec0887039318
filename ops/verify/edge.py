"""The fleet's public side as a client far away sees it: real TLS, nothing trusted blindly."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
SECONDS = 10


@dataclass(frozen=True)
class Edge:
    """One edge host.

    Args:
        address: where to connect; DNS is not asked, so that each edge of several can be.
        domain: the name to ask for and to verify.
        roots: PEM text of roots beside the machine's own.
    """

    address: str
    domain: str
    roots: str = ""

    def context(self) -> ssl.SSLContext:
        """Return settings that verify chain and name."""
        context = ssl.create_default_context()
        if self.roots:
            context.load_verify_locations(cadata=self.roots)
        return context

    def handshake(self, context: ssl.SSLContext, name: str) -> dict[str, Any]:
        """Shake hands, asking for a name, and return the certificate."""
        with (
            socket.create_connection((self.address, 443), timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return dict(secure.getpeercert() or {})

    def certificate(self) -> dict[str, Any]:
        """Return the certificate, verified."""
        try:
            return self.handshake(self.context(), self.domain)
        except OSError as error:
            raise AssertionError(f"https://{self.domain} at {self.address}: {error}") from error

    def days_left(self) -> float:
        """Days until the certificate lapses."""
        return (ssl.cert_time_to_seconds(self.certificate()["notAfter"]) - time.time()) / 86_400

    def speaks(self, version: str, name: str = "") -> bool:
        """Tell whether a handshake in one version succeeds; the chain is not looked at."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")  # so that this side does not refuse old versions
        context.minimum_version = context.maximum_version = VERSIONS[version]
        try:
            self.handshake(context, name or self.domain)
        except OSError:
            return False
        return True

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str]]:
        """Ask over verified HTTPS; returns status and headers, names in lower case."""
        plain = socket.create_connection((self.address, 443), timeout=SECONDS)
        connection = http.client.HTTPSConnection(self.domain, timeout=SECONDS)
        connection.sock = self.context().wrap_socket(plain, server_hostname=self.domain)
        return self._exchange(connection, method, path, body)

    def plain(self, path: str) -> tuple[int, dict[str, str]]:
        """Ask over plain HTTP; returns status and headers, names in lower case."""
        connection = http.client.HTTPConnection(self.address, 80, timeout=SECONDS)
        return self._exchange(connection, "GET", path, None)

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> tuple[int, dict[str, str]]:
        headers = {"Host": self.domain, "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            # Refused while we still sent: the answer is there all the same.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()
