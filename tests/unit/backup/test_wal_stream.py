"""WAL that a second host receives: what is kept there, and how it gets to a recovery."""

import base64
import io
import json
import os
import pwd
import sys
import zlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ops.backup import host_program

ROOT = Path(__file__).parents[3]
FIRST, SECOND = "0000000100000000000000A1", "0000000100000000000000A2"
SYSTEM = "7390000000000000001"


def program() -> ModuleType:
    spec = spec_from_file_location("wal_receiver", ROOT / "roles/wal_stream/files/wal_receiver.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {"state": str(tmp_path / "state"), "repository": str(tmp_path / "archive")}


@pytest.fixture
def folder(config: dict[str, Any]) -> Path:
    """What was received: a segment that is archived, one that is not, one that is being written."""
    found = Path(config["state"]) / SYSTEM
    found.mkdir(parents=True)
    for name in (FIRST, SECOND, "0000000100000000000000A3.partial", "00000002.history"):
        (found / name).write_bytes(name.encode())
    archived = Path(config["repository"]) / "15-1" / FIRST[:16]
    archived.mkdir(parents=True)
    (archived / f"{FIRST}-8a1f.zst").touch()
    return found


def test_what_the_repository_has_is_not_kept_twice(config: dict[str, Any], folder: Path) -> None:
    program().prune(config, folder)
    assert {path.name for path in folder.iterdir()} == {
        SECOND, "0000000100000000000000A3.partial", "00000002.history",
    }  # fmt: skip


def test_a_copy_that_is_on_its_way_into_the_repository_does_not_count(
    config: dict[str, Any], folder: Path
) -> None:
    (Path(config["repository"]) / "15-1" / FIRST[:16] / f"{SECOND}-77.zst.pgbackrest.tmp").touch()
    program().prune(config, folder)
    assert (folder / SECOND).exists()


def test_what_the_server_does_not_go_on_from_is_kept_aside_three_times(
    config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = program()
    for moment in range(1, 6):
        monkeypatch.setattr(receiver.time, "time", lambda moment=moment: 1000.0 + moment)
        folder.mkdir(exist_ok=True)
        (folder / SECOND).touch()
        receiver.put_aside(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        f"{SYSTEM}.1003", f"{SYSTEM}.1004", f"{SYSTEM}.1005",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "unexpected termination of replication stream: ERROR:  requested WAL segment "
        "0000000100000000000000A2 has already been removed",
        "could not send replication command: ERROR:  requested starting point 0/5000000 is ahead "
        "of the WAL flush position of this server 0/3000000",
        "ERROR:  requested starting point 0/A3000000 on timeline 1 is not in this server's history",
    ],
)
def test_the_server_elsewhere_is_told_from_the_server_away(said: str) -> None:
    receiver = program()
    assert receiver.ELSEWHERE.search(said)
    assert not receiver.ELSEWHERE.search("connection to server failed: Connection refused")


def test_what_is_not_archived_reaches_the_recovery_whole(
    config: dict[str, Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    received, receiver = tmp_path / "received", program()
    on_its_way = f"{SECOND}-77.zst.pgbackrest.tmp"
    (Path(config["repository"]) / "15-1" / FIRST[:16] / on_its_way).touch()
    monkeypatch.setattr(host_program, "RECEIVED", received)
    me = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(host_program.pwd, "getpwnam", lambda _name: me)
    receiver.list_(config, SYSTEM)
    names = json.loads(capsys.readouterr().out)
    assert names == [SECOND, "0000000100000000000000A3.partial"]
    for name in names:
        receiver.offer(config, SYSTEM, name)
        offered = capsys.readouterr().out
        assert zlib.decompress(base64.b64decode(offered)) == (folder / name).read_bytes()
        monkeypatch.setattr(sys, "stdin", io.StringIO(offered))
        host_program.take(name)
    assert {path.name: path.read_text() for path in received.iterdir()} == {
        SECOND: SECOND, "0000000100000000000000A3": "0000000100000000000000A3.partial",
    }  # fmt: skip


def test_a_cluster_that_nobody_received_has_nothing(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    program().list_(config, "1")
    assert json.loads(capsys.readouterr().out) == []
