"""An agent app at the other end of a connection that is not there: it answers as the test says."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from ops.errors import UnreachableError
from ops.fleet.model import Fleet, Host
from ops.remote.stream import Finished


def host(name: str) -> Host:
    return Host(name, f"10.0.0.{name[-1]}", frozenset({"agent"}), f"10.0.0.{name[-1]}")


def assert_understood(line: str) -> None:
    """Parse a command line as the agent app of this tree would; it raises where it would refuse."""
    command: Any = typer.main.get_command(import_module("agent_app.cli.main").app)
    words, context = shlex.split(line)[1:], None
    while words or context is None:
        context = command.make_context(command.name or "agent-app", words, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        _, command, words = command.resolve_command(context, rest)
    command.make_context(command.name, words, parent=context)


@dataclass
class RemoteApp:
    """Takes the place of `connect` and `execute`; notes what it was told."""

    answers: list[Finished] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    commands: list[tuple[str, str]] = field(default_factory=list)
    received: bytes = b""

    @property
    def lines(self) -> list[str]:
        return [command for _, command in self.commands]

    def says(self, document: Any, status: int = 0) -> None:
        self.answers.append(Finished(status, json.dumps(document), ""))

    def fails(self, complaint: str, status: int = 1) -> None:
        self.answers.append(Finished(status, "", complaint))

    def execute(
        self,
        _connection: object,
        host: Host,
        command: str,
        *,
        source: Iterable[bytes] = (),
        sink: Callable[[bytes], object] | None = None,
    ) -> Finished:
        if host.name in self.down:
            raise UnreachableError(f"{host.name} cannot be reached over SSH: no route")
        assert_understood(command.splitlines()[-1])
        self.commands.append((host.name, command))
        self.received = b"".join(source)
        done = self.answers.pop(0)
        if sink is None:
            return done
        sink(done.output.encode())
        return Finished(done.status, "", done.complaint)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> RemoteApp:
    app = RemoteApp()

    @contextlib.contextmanager
    def connect(_fleet: Fleet, _host: Host) -> Iterator[object]:
        yield object()

    fleet = Fleet(Path("inventory"), "example.com", (host("agent1"), host("agent2")))
    monkeypatch.setattr("ops.agent.host.connect", connect)
    monkeypatch.setattr("ops.agent.host.execute", app.execute)
    monkeypatch.setattr("ops.fleet.load", lambda _path: fleet)
    return app
