"""When the request that is being served came in."""

import time
from contextvars import ContextVar

_arrived: ContextVar[float | None] = ContextVar("arrived", default=None)


def note_arrival() -> float:
    """Begin the request's clock, which its run inherits; return it, by `time.monotonic`."""
    now = time.monotonic()
    _arrived.set(now)
    return now


def seconds_since_arrival(otherwise: float) -> float:
    """Return how long ago the request came.

    Args:
        otherwise: What to count from where there is no request, by `time.monotonic`.
    """
    arrived = _arrived.get()
    return time.monotonic() - (otherwise if arrived is None else arrived)
