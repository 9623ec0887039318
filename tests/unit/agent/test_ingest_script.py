"""The script that a host runs for `ops kb ingest`, in a real shell; its neighbours are ours."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ops.agent.command import ingest_from_input
from ops.agent.folder import find_documents, pack

AGENT_APP = """#!/bin/sh
echo "$3" > "$NOTES/folder"
ls -R "$3" > "$NOTES/files"
stat -c %a "$3" > "$NOTES/mode"
. "$NOTES/behaviour"
"""
CHOWN = '#!/bin/sh\necho "$@" > $NOTES/owner\n'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the neighbours of the script, and notes of what they saw."""
    for name, text in {
        "agent-app": AGENT_APP,
        "chown": '#!/bin/sh\necho "$@" > $NOTES/owner\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "behaviour").write_text("exit 0\n")
    (tmp_path / "docs/sub").mkdir(parents=True)
    (tmp_path / "docs/a.md").write_text("A")
    (tmp_path / "docs/sub/b.txt").write_text("B")
    return tmp_path


def begin(machine: Path) -> "subprocess.Popen[bytes]":
    environment = {"PATH": f"{machine}:{os.environ['PATH']}", "NOTES": str(machine)}
    return subprocess.Popen(
        ["sh", "-c", ingest_from_input({"collection": "default"})],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def tar(machine: Path) -> bytes:
    return b"".join(pack(find_documents(machine / "docs")))


def folder(machine: Path) -> Path:
    return Path((machine / "folder").read_text().strip())


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_folder_is_private_and_gone_afterwards_and_the_status_comes_through(
    machine: Path, status: int
) -> None:
    (machine / "behaviour").write_text(f"exit {status}\n")
    process = begin(machine)
    process.communicate(tar(machine), timeout=20)
    assert process.returncode == status
    assert (machine / "mode").read_text() == "700\n"
    assert (machine / "owner").read_text() == f"-R agent_app:agent_app {folder(machine)}\n"
    assert {"a.md", "b.txt"} <= set((machine / "files").read_text().split())
    assert not folder(machine).exists()


def test_a_connection_that_ends_midway_ingests_nothing_and_leaves_nothing(machine: Path) -> None:
    before = set(Path("/var/tmp").glob("rackhand-knowledge.*"))
    process = begin(machine)
    process.communicate(tar(machine)[:700], timeout=20)
    assert process.returncode != 0
    assert not (machine / "folder").exists()
    assert set(Path("/var/tmp").glob("rackhand-knowledge.*")) <= before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(machine: Path, number: signal.Signals) -> None:
    (machine / "behaviour").write_text('touch "$NOTES/there"; sleep 1\n')
    process = begin(machine)
    assert process.stdin is not None
    process.stdin.write(tar(machine))
    process.stdin.close()
    deadline = time.monotonic() + 10
    while not (machine / "there").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(10) != 0
    assert not folder(machine).exists()
