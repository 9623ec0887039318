import socket
from types import SimpleNamespace
from typing import Any

import pytest
from fabric import Connection
from invoke.exceptions import UnexpectedExit
from invoke.runners import Result

from ops.errors import RemoteError
from ops.fleet.model import Host
from ops.remote import run
from ops.remote.connection import KEEPALIVE_SECONDS, SILENCE_SECONDS, open_line

HOST = Host("node1", "10.0.0.1", frozenset({"gpu"}), "10.0.0.1")


class Line(Connection):
    """A connection whose other end is nobody's."""

    def __init__(self, exited: int = 0) -> None:
        super().__init__("node1")
        self.opened = 0
        self.keepalive = 0
        self.exited = exited

    @property
    def is_connected(self) -> bool:
        return bool(self.opened)

    def open(self) -> Any:
        self.opened += 1
        self.transport = SimpleNamespace(sock=socket.socket(), set_keepalive=self._keep)

    def _keep(self, seconds: int) -> None:
        self.keepalive = seconds

    def run(self, command: str, **_: Any) -> Result:
        result = Result(command=command, stdout="said", exited=self.exited, hide=("stdout",))
        if self.exited:
            raise UnexpectedExit(result)
        return result


def test_a_line_breaks_by_itself_where_its_host_falls_silent() -> None:
    line = Line()
    open_line(line)
    open_line(line)
    assert line.opened == 1
    assert line.keepalive == KEEPALIVE_SECONDS
    with line.transport.sock as made:
        bound = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert bound == SILENCE_SECONDS * 1000


def test_a_command_whose_line_broke_says_so_instead_of_a_status() -> None:
    assert run(Line(), HOST, "true") == "said"
    with pytest.raises(RemoteError, match="connection to node1 ended before the command did"):
        run(Line(exited=-1), HOST, "true")
    with pytest.raises(RemoteError, match="failed with status 3: said"):
        run(Line(exited=3), HOST, "true")
