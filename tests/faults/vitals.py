"""What a process holds: measured before a fault and after, to see that nothing is left of it."""

import asyncio
import re
import time
from dataclasses import dataclass

from app_process import AppProcess

SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Held:
    """Tasks of the event loop, open files, runs under way."""

    tasks: int
    files: int
    runs: int


def figure(page: str, series: str) -> float:
    """Return a series of a metrics page, 0 where it is not there yet."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def held(app: AppProcess) -> Held:
    """Measure, when the process has had a moment to take its pulse."""
    await asyncio.sleep(0.6)
    page = await app.metrics()
    return Held(
        int(figure(page, "agent_app_tasks")),
        int(figure(page, "process_open_fds")),
        int(figure(page, "agent_app_runs_in_flight")),
    )


async def settles(app: AppProcess, before: Held, *, connections: int = 12) -> None:
    """Fail unless the process comes back to what it held, within ten seconds.

    Args:
        app: The process.
        before: What it held.
        connections: To databases and engines, which it may keep: each a file and two tasks.
    """
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        now = await held(app)
        if (
            now.runs == before.runs
            and now.tasks <= before.tasks + 2 * connections
            and now.files <= before.files + connections
        ):
            return
    raise AssertionError(f"left behind: {now}, before: {before}")


async def recovers(app: AppProcess, *, seconds: float) -> float:
    """Return after how long the app answers a turn again; fail beyond a bound."""
    began = time.monotonic()
    while True:
        response = await app.client.post(
            "/chat", json={"message": "Are you there?", "stream": False}, headers=app.headers()
        )
        spent = time.monotonic() - began
        if response.status_code == 200:
            return spent
        assert response.status_code == 503, response.text
        assert spent < seconds, f"still {response.text} after {spent:.1f} s"
        await asyncio.sleep(0.1)
