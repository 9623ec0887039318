"""What all tests share: where the commands are, and a machine without a person's own settings."""

import datetime
import os
import platform
import signal
import sys
from pathlib import Path

import pytest

from tests.standstill import Standstill
from tests.time_limit import TimeLimit

BIN = Path(sys.executable).parent
FOLDERS = ("unit", "agent_app", "faults", "contract", "lab", "gpu", "bench")
LAB_FIRST = (
    "test_site", "test_survival", "test_model_upgrade", "test_restarts", "test_gpu_driver",
    "test_agent_commands", "test_site_hardening", "test_gpu_exporter", "test_wrong_inventories",
)  # fmt: skip
"""The product's main promises; the rest of the lab's tests follow by name."""
LARGE = ("test_stage",)
"""Of three hosts too. It changes the lab that test_site needs fresh, and so comes after it."""
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
    """Watch the machine itself: one that stands still, and one that is too slow for all tests."""
    config.pluginmanager.register(Standstill())
    config.pluginmanager.register(TimeLimit.of_environment(is_vital))


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_this_person() -> None:
    for name in ("OPS_DEBUG", "OPS_INVENTORY", "ANSIBLE_INVENTORY", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)


def weight(item: pytest.Item) -> tuple[int, bool, int]:
    """Sort key of a test: its folder, the small labs before the large, its file."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return (
        FOLDERS.index(folder) if folder in FOLDERS else 0,
        folder == "lab" and ("three hosts" in item.name or item.path.stem in LARGE),
        LAB_FIRST.index(item.path.stem) if item.path.stem in LAB_FIRST else len(LAB_FIRST),
    )


def is_vital(item: pytest.Item) -> bool:
    """Whether it is run however slow the machine is: all but the labs, and one host's site.yml."""
    folder, large, _ = weight(item)
    return FOLDERS[folder] != "lab" or (item.path.stem == "test_site" and not large)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, then those that weigh most: a broken unit is known before a lab boots."""
    items.sort(key=weight)


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
