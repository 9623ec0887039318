"""`pipe` over a real SSH connection, to a server in this process."""

import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest
from ssh_server import ssh_server

from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host
from ops.remote import connect, pipe
from ops.weights.job import LOADER, make_job

SECRET = "s" * 100_000


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ssh_server(tmp_path) as port:
        host = Host(
            "gpu1", "127.0.0.1", frozenset({"gpu"}), "127.0.0.1", port=port,
            user="root", key_file=str(tmp_path / "key"),
            ssh_arguments=("-o", f"UserKnownHostsFile={tmp_path / 'known_hosts'}"),
        )  # fmt: skip
        yield Fleet(tmp_path, "example.com", (host,))


def talk(fleet: Fleet, command: str, text: str, *, stays: bool = False) -> tuple[int, list[str]]:
    said: list[str] = []
    with connect(fleet, fleet.hosts[0]) as connection:
        status = pipe(connection, fleet.hosts[0], command, text, said.append, stays=stays)
    return status, said


def test_a_long_text_arrives_whole_and_the_status_comes_back(fleet: Fleet) -> None:
    assert talk(fleet, "wc -c; exit 7", SECRET) == (7, ["100000"])


def test_a_program_that_stays_hears_that_we_live(fleet: Fleet) -> None:
    command = "read first; echo $first; for n in 1 2 3; do sleep 0.1; echo $n; done; read x; echo x"
    assert talk(fleet, command, "hello\n", stays=True) == (0, ["hello", "1", "2", "3", "x"])


def test_a_program_that_falls_silent_is_given_up(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = __import__("sys").modules["ops.remote.pipe"]
    monkeypatch.setattr(module, "PING_SECONDS", 0.2)
    monkeypatch.setattr(module, "SILENCE_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(RemoteError, match="gpu1 fell silent"):
        talk(fleet, "exec sleep 30", "", stays=True)
    assert time.monotonic() - began < 10


def test_a_job_runs_from_standard_input_alone(fleet: Fleet) -> None:
    job = make_job("shelf_program.py", {"verb": "folder", "path": "/nowhere at all"})
    assert talk(fleet, f"python3 -c {quote(LOADER)}", job) == (0, ['{"size": -1}'])
