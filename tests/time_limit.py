"""Ends a run of tests in time on a machine that is several times slower than usual.

Whoever runs the tests sets RACKHAND_TESTS_END, a moment in seconds since 1970 by which the run is
to be over. Tests come in the order of their weight, and those for which no time is left are not
begun: they are told as skipped, with this as their reason. What is vital is run all the same.
"""

import os
import time
from collections.abc import Callable

import pytest

VARIABLE = "RACKHAND_TESTS_END"
LEAST_SECONDS = 600.0
"""What is kept free at the end for one test, with what its fixtures boot."""


class TimeLimit:
    """A plugin of pytest: it skips what cannot be expected to end in time.

    Args:
        end: When the run is to be over, in seconds since 1970; infinite if no limit is set.
        is_vital: Tells the tests that are never skipped.
    """

    def __init__(self, end: float, is_vital: Callable[[pytest.Item], bool]) -> None:
        self._end = end
        self._is_vital = is_vital
        self._longest = LEAST_SECONDS
        self._left: list[str] = []

    @classmethod
    def of_environment(cls, is_vital: Callable[[pytest.Item], bool]) -> "TimeLimit":
        """The limit that RACKHAND_TESTS_END sets."""
        return cls(float(os.environ.get(VARIABLE, "inf")), is_vital)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a test that may take as long as the longest did."""
        if time.time() + self._longest > self._end and not self._is_vital(item):
            self._left.append(item.nodeid)
            pytest.skip("no time is left for it on this machine")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember how long the longest phase of a test was."""
        self._longest = max(self._longest, report.duration)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was not begun: pytest folds skipped tests of one reason into a number."""
        if self._left:
            terminalreporter.section("not begun, for want of time")
            for name in self._left:
                terminalreporter.write_line(name)
