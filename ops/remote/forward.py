"""Reach what listens on a host's loopback, through the SSH connection to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ops.fleet.model import LOOPBACK

if TYPE_CHECKING:
    from fabric import Connection


@contextmanager
def forwarded(connection: Connection, port: int) -> Iterator[str]:
    """Lead a free port of this machine to a loopback port of a host.

    Args:
        connection: An open one, of `connect` and `open_line`.
        port: What listens on the host's 127.0.0.1.

    Yields:
        The base URL on this machine, `http://127.0.0.1:<port>`, until the block is left.
    """
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        local = free.getsockname()[1]
    with connection.forward_local(local, remote_port=port, remote_host=LOOPBACK):
        yield f"http://{LOOPBACK}:{local}"
