"""`ops status` and `ops top` as commands, over SSH to this machine itself and to a dead port."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ssh_server import ssh_server

OPS = Path(sys.executable).parent / "ops"
SECONDS = 60
HOSTS = """
all:
  vars: {{ansible_user: root, domain: agent.example.com, models: [],
          ansible_ssh_private_key_file: {folder}/key,
          ansible_ssh_common_args: -o UserKnownHostsFile={folder}/known_hosts}}
  hosts:
    here: {{ansible_host: 127.0.0.1, ansible_port: {port}, private_address: 127.0.0.1}}
    away: {{ansible_host: 127.0.0.1, ansible_port: 9, private_address: 127.0.0.1}}
  children: {{data: {{hosts: {{here: }}}}, gpu: {{hosts: {{away: }}}}}}
"""


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ssh")
    systemctl = folder / "systemctl"  # this machine need not run systemd
    systemctl.write_text("#!/bin/sh\necho '[]'\n")
    systemctl.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{before}"
    with ssh_server(folder) as port:
        path = folder / "hosts.yml"
        path.write_text(HOSTS.format(folder=folder, port=port))
        yield path
    os.environ["PATH"] = before


def ops(inventory: Path, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(OPS), *words, "-i", str(inventory)], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=SECONDS, check=False, **settings,
    )  # fmt: skip


def test_status_tells_each_host_and_exits_1_for_one_that_does_not_answer(inventory: Path) -> None:
    done = ops(inventory, "status")
    assert done.returncode == 1, done.stderr
    assert "0 units well" in done.stdout
    assert "no answer" in done.stdout
    told = json.loads(ops(inventory, "status", "--json").stdout)
    here, away = told["hosts"]
    assert (here["host"], here["well"], here["complaints"]) == ("here", True, [])
    assert here["memory"]["total"] > 0
    assert "cannot be reached" in away["problem"]
    assert told["operation"] is None


def test_top_prints_once_where_there_is_no_terminal(inventory: Path) -> None:
    done = ops(inventory, "top", "--every", "0.5")
    assert done.returncode == 1, done.stderr
    assert "0 units well" in done.stdout
    assert "\x1b" not in done.stdout


def test_top_tells_json_lines_over_one_connection_until_its_reader_has_enough(
    inventory: Path,
) -> None:
    words = [str(OPS), "top", "--json", "--every", "0.5", "-i", str(inventory)]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert second["at"] > first["at"]
        process.stdout.close()
        assert process.wait(SECONDS) == 0
        assert process.stderr.read() == ""
    once = ops(inventory, "top", "--json", "--once", "--every", "0.5").stdout.splitlines()
    assert len(once) == 1


@pytest.mark.parametrize("end", ["q", "interrupt", "terminate"])
def test_top_ends_cleanly_and_leaves_the_terminal_as_it_was(inventory: Path, end: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="80", LINES="24")
        os.execv(OPS, [str(OPS), "top", "--every", "0.5", "-i", str(inventory)])
    text = read_until(terminal, "no answer")
    assert "\x1b[?1049h" in text, "it has a screen of its own"
    if end == "q":
        os.write(terminal, b"q")
    elif end == "interrupt":
        os.write(terminal, b"\x03")
    else:
        os.kill(pid, signal.SIGTERM)
    rest = read_until(terminal, "\x1b[?1049l")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, rest
    assert "Traceback" not in rest
    assert "\x1b[?25h" in rest, "the cursor is back"
    os.close(terminal)


def read_until(terminal: int, words: str) -> str:
    text, deadline = "", time.monotonic() + SECONDS
    while words not in text:
        assert time.monotonic() < deadline, text[-2000:]
        if select.select([terminal], [], [], 1)[0]:
            try:
                text += os.read(terminal, 1 << 16).decode(errors="replace")
            except OSError:  # Linux's way to tell the end of a terminal
                raise AssertionError(text[-2000:]) from None
    if words.endswith("1049l"):
        while select.select([terminal], [], [], 1)[0]:
            try:
                text += os.read(terminal, 1 << 16).decode(errors="replace")
            except OSError:
                break
    return text
