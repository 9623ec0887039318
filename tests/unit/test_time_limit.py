"""What cannot end in time is not begun, and said so; what is vital is begun."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests.time_limit import TimeLimit

def pytest_configure(config):
    config.pluginmanager.register(TimeLimit.of_environment(lambda item: "vital" in item.name))
"""
TESTS = """
import pytest

@pytest.fixture(scope="module")
def lab():
    print("a lab boots")
    yield

def test_plain(lab):
    pass

def test_vital():
    assert True

def test_vital_fails():
    assert False
"""


def run(folder: Path, end: float | None) -> str:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_order.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("RACKHAND_TESTS_END", None)
    if end is not None:
        environment["RACKHAND_TESTS_END"] = str(end)
    command = [sys.executable, "-m", "pytest", "-rs", "-s", str(folder)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment
    ).stdout


def test_without_a_limit_or_with_time_everything_is_run(tmp_path: Path) -> None:
    for end in (None, time.time() + 3600):
        told = run(tmp_path, end)
        assert "a lab boots" in told
        assert "1 failed, 2 passed" in told


def test_when_no_time_is_left_only_the_vital_is_run_and_no_lab_boots(tmp_path: Path) -> None:
    told = run(tmp_path, time.time() + 300)
    assert "a lab boots" not in told
    assert "1 failed, 1 passed, 1 skipped" in told
    assert "not begun, for want of time" in told
    assert "\ntest_order.py::test_plain\n" in told
