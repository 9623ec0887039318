"""What all tests share: where the commands are, and a machine without a person's own settings."""

import datetime
import os
import platform
import signal
import sys
from pathlib import Path

import pytest

from tests.standstill import Standstill

BIN = Path(sys.executable).parent
os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"


# In the background, or under nohup, a shell has us ignore these, and every child would as well:
# no test could see what a person's Ctrl-C does.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)


def pytest_configure(config: pytest.Config) -> None:
    """Watch the machine itself."""
    config.pluginmanager.register(Standstill())


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_this_person() -> None:
    for name in ("OPS_DEBUG", "OPS_INVENTORY", "ANSIBLE_INVENTORY", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: a broken unit is known before a lab boots."""
    order = ("unit", "agent_app", "faults", "contract", "lab", "gpu", "bench")
    places = {name: number for number, name in enumerate(order)}
    root = Path(__file__).parent
    items.sort(key=lambda item: places.get(item.path.relative_to(root).parts[0], 0))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Write what a long run showed to docs/results/, dated."""
    if config.option.markexpr != "long":
        return
    reports = [
        report
        for outcome in ("passed", "failed", "error", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" or outcome != "passed"
    ]
    if not reports:
        return
    seconds: dict[str, float] = {}
    for report in (r for found in terminalreporter.stats.values() for r in found):
        if isinstance(report, pytest.TestReport):  # what a fixture took counts for its first test
            seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration
    today = datetime.datetime.now(datetime.UTC).date()
    path = Path(__file__).parent.parent / "docs" / "results" / f"{today}-long.md"
    earlier = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = {line.split("`")[1]: line for line in earlier if line.startswith("| `")}
    rows |= {r.nodeid: f"| `{r.nodeid}` | {r.outcome} | {seconds[r.nodeid]:.0f} |" for r in reports}
    passed = sum("| passed |" in row for row in rows.values())
    lines = [
        "# The long tests",
        "",
        f"{today}, {os.cpu_count()} cores, Python {platform.python_version()}. Written by the runs "
        f"of that day themselves (`make test-long`), of each test the last: {passed} of "
        f"{len(rows)} passed.",
        "",
        "| test | outcome | seconds |",
        "|---|---|---|",
        *rows.values(),
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    terminalreporter.write_line(f"written: {path.relative_to(Path.cwd())}")
