"""What happens per second, from two looks at the same thing. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ops.live.state import Counts, HostState

WINDOW_SECONDS = 10.0
"""Shorter ones jump; longer ones hide what a step of an operation does."""
PERCENTILE = 0.95


@dataclass(frozen=True)
class Rates:
    """How an engine, or an instance of the app, does; None where nobody can tell.

    Attributes:
        running, waiting: Requests that an engine works on, and has queued, now.
        kv_cache: Share of the KV cache in use, 0 to 1.
        in_flight, queued: Runs of an instance of the app, and steps that wait for an engine.
        requests_per_second: By the engine proxy's log; of the app by its own count.
        tokens_per_second: Generated.
        prompt_tokens_per_second: Read.
        first_token_p95_seconds: By the engine's histogram, interpolated; None without requests.
        error_share: Failed of all requests, 0 to 1; None without requests.
        seconds: The time that the rates are about.
    """

    running: float | None = None
    waiting: float | None = None
    kv_cache: float | None = None
    in_flight: float | None = None
    queued: float | None = None
    requests_per_second: float | None = None
    tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    first_token_p95_seconds: float | None = None
    error_share: float | None = None
    seconds: float = 0.0

    def as_record(self, *names: str) -> dict[str, Any]:
        """The named figures for programs, rounded."""
        return {
            name: round(value, 4) if value is not None else None
            for name, value in asdict(self).items()
            if name in names
        }


def rates(before: Counts | None, now: Counts | None, seconds: float) -> Rates:
    """Compare two looks.

    Args:
        before: The earlier one, None if there is none.
        now: The later one.
        seconds: The time between them.
    """
    if now is None:
        return Rates()
    gauges: dict[str, float] = dict(now.gauges)
    if before is None or seconds <= 0:
        return Rates(**gauges)
    grown = {
        name: _grown(before.totals[name], value)
        for name, value in now.totals.items()
        if name in before.totals
    }

    def per_second(name: str) -> float | None:
        return grown[name] / seconds if name in grown else None

    requests = grown.get("requests", 0.0)
    return Rates(
        **gauges,
        requests_per_second=per_second("requests"),
        tokens_per_second=per_second("generation_tokens"),
        prompt_tokens_per_second=per_second("prompt_tokens"),
        first_token_p95_seconds=percentile(before.first_token, now.first_token),
        error_share=min(1.0, grown.get("failed", 0.0) / requests) if requests else None,
        seconds=seconds,
    )


def _grown(before: float, now: float) -> float:
    """How much a counter grew; one that fell began anew with its process."""
    return now - before if now >= before else now


def percentile(
    before: Mapping[str, float], now: Mapping[str, float], share: float = PERCENTILE
) -> float | None:
    """The percentile of a histogram between two looks, as Prometheus' histogram_quantile has it.

    Args:
        before: Cumulative counts by upper bound, as text; may be empty.
        now: The same, later.
        share: 0 to 1.

    Returns:
        Linear within its bucket; the last finite bound for the open bucket; None without counts.
    """
    anew = any(now.get(bound, 0.0) < count for bound, count in before.items())
    counts = sorted(
        (
            math.inf if bound == "+Inf" else float(bound),
            now[bound] - before.get(bound, 0.0) * (not anew),
        )
        for bound in now
    )
    if not counts or counts[-1][1] <= 0:
        return None
    rank = share * counts[-1][1]
    for (low, under), (high, upto) in pairwise([(0.0, 0.0), *counts]):
        if upto >= rank:
            if math.isinf(high):
                return low
            return low + (high - low) * (rank - under) / (upto - under)
    return None


class History:
    """The looks of the last seconds, so that rates are about more than one refresh."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._looks: dict[str, deque[HostState]] = {}

    def add(self, states: list[HostState]) -> None:
        """Add the newest look at each host; a host that does not answer begins anew."""
        for state in states:
            looks = self._looks.setdefault(state.host, deque())
            if state.problem:
                looks.clear()
                continue
            if looks and looks[-1].at >= state.at:
                looks.clear()  # it booted
            looks.append(state)
            while len(looks) > 2 and state.at - looks[1].at >= self._window:
                looks.popleft()

    def slot(self, host: str, model: str, slot: str) -> Rates:
        """How a slot does."""

        def find(state: HostState) -> Counts | None:
            found = state.models.get(model)
            return found.slots[slot].counts if found and slot in found.slots else None

        return self._compare(host, find)

    def instance(self, host: str, port: str) -> Rates:
        """How an instance of the app does."""

        def find(state: HostState) -> Counts | None:
            return next((one.counts for one in state.instances if one.port == port), None)

        return self._compare(host, find)

    def refused_per_second(self, host: str) -> float | None:
        """Requests that a drained or held host refuses; None where there is nothing to compare."""
        looks = self._looks.get(host)
        if not looks or len(looks) < 2 or looks[-1].refused is None or looks[0].refused is None:
            return None
        return _grown(looks[0].refused, looks[-1].refused) / (looks[-1].at - looks[0].at)

    def _compare(self, host: str, find: Any) -> Rates:
        looks = self._looks.get(host)
        if not looks:
            return Rates()
        now = find(looks[-1])
        # The oldest look at which it answered: counters of a page that was missing say nothing.
        for state in list(looks)[:-1]:
            before = find(state)
            if before is not None and (before.answers or now is None or not now.answers):
                return rates(before, now, looks[-1].at - state.at)
        return rates(None, now, 0.0)
