"""Takes the pulse of the process: how late the event loop is, its tasks, the database's pool."""

import asyncio
import time
from collections.abc import Callable, Mapping

from agent_app.observability import metrics

BEAT_SECONDS = 0.5


async def take_pulse(pool_statistics: Callable[[], Mapping[str, int]]) -> None:
    """Measure twice a second, for ever.

    Args:
        pool_statistics: What psycopg's pool says of itself.
    """
    while True:
        metrics.TASKS.set(len(asyncio.all_tasks()))
        found = pool_statistics()
        idle = found.get("pool_available", 0)
        metrics.DATABASE_CONNECTIONS.labels("idle").set(idle)
        metrics.DATABASE_CONNECTIONS.labels("busy").set(found.get("pool_size", 0) - idle)
        metrics.DATABASE_WAITING.set(found.get("requests_waiting", 0))
        wanted = time.perf_counter() + BEAT_SECONDS
        await asyncio.sleep(BEAT_SECONDS)
        metrics.LOOP_LAG.observe(max(0.0, time.perf_counter() - wanted))
