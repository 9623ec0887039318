"""Tells when the whole machine stood still, which no test can be judged by.

A shared machine is sometimes paused: nothing runs for a minute and clocks go on, so that every
timeout within a test is over at once. A test that fails while that happened is run once more, and
pytest counts it as rerun. Any other failure stands.
"""

import threading
import time

import pytest

TICK_SECONDS = 0.5
STANDSTILL_SECONDS = 2.0
"""Beyond what a busy machine withholds from a thread that only sleeps, and about what
the shortest leases and timeouts of the tests last."""


class Standstill:
    """A plugin of pytest: it sleeps in short ticks and notes how far beyond one it slept.

    Args:
        seconds: How long nothing must have run.
    """

    def __init__(self, seconds: float = STANDSTILL_SECONDS) -> None:
        self._seconds = seconds
        self._longest = 0.0
        threading.Thread(target=self._tick, name="standstill", daemon=True).start()

    def stood_still(self) -> bool:
        """Whether the machine stood still since the test began."""
        return self._longest >= self._seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Have each test run once more where its failure may be the machine's."""
        for item in items:
            item.add_marker(pytest.mark.flaky(reruns=1, condition=self.stood_still))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Forget what was before this test."""
        self._longest = 0.0

    def _tick(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(TICK_SECONDS)
            now = time.monotonic()
            self._longest = max(self._longest, now - last - TICK_SECONDS)
            last = now
