"""The stand-in as a process: how quickly it is there, and how its faults end it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tests.contract.engines import started
from tests.contract.test_answers import CHAT, HELLO, asked

ROOT = Path(__file__).resolve().parents[3]


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stand_in_engine", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def test_out_of_memory_at_load_says_what_torch_says(tmp_path: Path) -> None:
    done = ended("serve", str(tmp_path), "--faults", "out_of_memory")
    assert done.returncode == 1
    assert "torch.OutOfMemoryError: CUDA out of memory" in done.stderr


def test_a_crash_at_load_exits_1(tmp_path: Path) -> None:
    assert ended("serve", str(tmp_path), "--faults", "crash_at_load").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["serve", "/nowhere"], "no model at /nowhere"), (["serve", ".", "--faults", "x"], "'x'")],
)
def test_a_wrong_command_line_exits_2_and_says_why(arguments: list[str], told: str) -> None:
    done = ended(*arguments)
    assert done.returncode == 2
    assert told in done.stderr


def test_it_crashes_in_the_middle_of_a_stream_when_told_to(tmp_path: Path) -> None:
    with started("stand-in", tmp_path, "--faults", "crash_after_tokens:5") as engine:
        with pytest.raises(httpx2.TransportError):
            httpx2.post(engine.url + CHAT, json=asked(HELLO, stream=True))
        assert engine.process.wait(timeout=5) != 0


def test_faults_come_and_go_while_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "faults"
    with started("stand-in", tmp_path, "--faults-file", str(file)) as engine:
        body = asked(HELLO, max_tokens=2)
        file.write_text("hang")
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(engine.url + CHAT, json=body, timeout=0.3)
        assert httpx2.get(engine.url + "/health").status_code == 200
        file.write_text("error_rate:1")
        assert httpx2.post(engine.url + CHAT, json=body).status_code == 500
        file.unlink()
        assert httpx2.post(engine.url + CHAT, json=body).status_code == 200


def test_it_starts_after_its_load_and_not_before(tmp_path: Path) -> None:
    began = time.monotonic()
    with started("stand-in", tmp_path, "--faults", "slow_load:1.5"):
        assert time.monotonic() - began > 1.5
