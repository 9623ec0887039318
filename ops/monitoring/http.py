"""Reach a service of the monitoring host, over SSH, and tell its errors to a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
from paramiko.ssh_exception import SSHException

from ops.errors import InputError, RemoteError
from ops.fleet import Fleet, Host
from ops.remote import connect, forwarded
from ops.remote.connection import open_line, unreachable

ANSWER_SECONDS = 30.0


class Service:
    """An HTTP API at a base URL.

    Args:
        url: Base address, without a final slash.
        name: What answers there, for messages: a unit.
        host: Where it runs, for messages.
    """

    def __init__(self, url: str, name: str, host: str) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self.host = host
        self._client = httpx2.Client(timeout=ANSWER_SECONDS, trust_env=False)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> httpx2.Response:
        """Ask, and return any answer below status 500.

        Raises:
            RemoteError: It gives no answer, or says that it failed.
        """
        try:
            answer = self._client.request(
                method, self.url + path, params=query, data=form, json=body
            )
        except httpx2.TransportError as error:
            raise RemoteError(
                f"{self.name} on {self.host} gives no answer: {error or type(error).__name__}",
                place=f"{self.host}: {self.name}",
                cure=f"systemctl status {self.name} there, or ops provision --tags watch",
            ) from error
        if answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
            raise RemoteError(
                f"{self.name} on {self.host} failed with status {answer.status_code}: "
                f"{answer.text[:500].strip()}",
                place=f"{self.host}: {self.name} {path}",
                cure=f"journalctl -u {self.name} -n 50 there",
            )
        return answer


def watcher(fleet: Fleet) -> Host:
    """Return the host that watches the fleet: the first of group `monitoring`.

    Raises:
        InputError: The group is empty.
    """
    if not fleet.group("monitoring"):
        raise InputError(
            "no host is in group monitoring, so that nobody watches this fleet",
            place=str(fleet.inventory),
            cure="put a host into the group monitoring, then ops provision",
        )
    return fleet.first("monitoring")


@contextmanager
def reached(fleet: Fleet, port: int, name: str) -> Iterator[Service]:
    """Lead to a loopback port of the host that watches the fleet.

    Args:
        fleet: The fleet.
        port: What listens on that host's 127.0.0.1.
        name: The unit that does, for messages.

    Raises:
        InputError: Nobody watches the fleet.
        RemoteError: The host cannot be reached.
    """
    host = watcher(fleet)
    with connect(fleet, host) as connection:
        try:
            open_line(connection)
        except (SSHException, OSError) as error:
            raise unreachable(host, error) from error
        with forwarded(connection, port) as url:
            service = Service(url, name, host.name)
            try:
                yield service
            finally:
                service.close()
