"""A test that a standstill of the machine failed is run once more, and no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests.standstill import Standstill

def pytest_configure(config):
    config.pluginmanager.register(Standstill(seconds=1.0))
"""
TESTS = """
import time
from pathlib import Path

def test_that_is_paused():
    begun = Path(__file__).with_name("begun")
    if not begun.exists():
        end = time.monotonic() + 2
        begun.touch()
        while time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(1)
        assert False

def test_that_fails():
    assert False
"""


def test_what_was_paused_is_run_once_more(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_paused.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "pytest_rerunfailures", "-rR", str(tmp_path)],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    try:
        while not (tmp_path / "begun").exists():
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.01)
        run.send_signal(signal.SIGSTOP)
        time.sleep(3)
        run.send_signal(signal.SIGCONT)
        told, _ = run.communicate()
    finally:
        run.kill()
    assert "1 failed, 1 passed, 1 rerun" in told, told
    assert told.count("RERUN test_paused.py::test_that_is_paused") == 1, told
