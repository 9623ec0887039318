"""Whether a new slot does well enough to get more requests. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEAST_REQUESTS = 20
"""Fewer say nothing about a percentile; errors count from the first three on."""
LEAST_ERRORS = 3
FLOOR_SECONDS = 0.25
"""Slowness below this is nobody's matter: it keeps a tiny baseline from making noise a failure."""


@dataclass(frozen=True)
class Budget:
    """What is allowed.

    Attributes:
        max_error_share: Failed of all requests, 0 to 1.
        max_slowdown: The 95th percentile of the first byte, over that of the old slot.
    """

    max_error_share: float
    max_slowdown: float


@dataclass(frozen=True)
class Sample:
    """What a slot did in a stage; seconds to the first byte of each request."""

    requests: int = 0
    failed: int = 0
    first_byte: tuple[float, ...] = ()

    def plus(self, found: Mapping[str, Any]) -> Sample:
        """Add what the proxy's log had since."""
        return Sample(
            self.requests + found["requests"],
            self.failed + found["failed"],
            (*self.first_byte, *found["first_byte"]),
        )

    def percentile(self, share: float = 0.95) -> float:
        """The nearest-rank percentile of the first byte in seconds, 0 without requests."""
        if not self.first_byte:
            return 0.0
        ranked = sorted(self.first_byte)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    def told(self) -> str:
        """For people."""
        return (
            f"{self.requests} requests, {self.failed} failed, first byte "
            f"{self.percentile() * 1000:.0f} ms at the 95th percentile"
        )


LEAST_FIRST_TOKENS = 5
"""A mean needs fewer than a percentile; a slow engine gives few."""


@dataclass(frozen=True)
class FirstTokens:
    """What an engine's own histogram says: seconds to the first token of all, and their number."""

    seconds: float = 0.0
    count: float = 0.0

    def since(self, before: FirstTokens) -> FirstTokens:
        """What came after a moment."""
        return FirstTokens(self.seconds - before.seconds, self.count - before.count)

    @property
    def mean(self) -> float:
        """Seconds, 0 of none."""
        return self.seconds / self.count if self.count else 0.0


def judge_first_tokens(new: FirstTokens, old: FirstTokens, budget: Budget) -> str:
    """Return why the new engine is too slow, empty when it is not or too few tell."""
    if min(new.count, old.count) < LEAST_FIRST_TOKENS:
        return ""
    if new.mean > max(old.mean * budget.max_slowdown, old.mean + FLOOR_SECONDS):
        return f"its first token takes {new.mean:.2f} s on average, the other's {old.mean:.2f} s"
    return ""


def judge(new: Sample, old: Sample, budget: Budget) -> str:
    """Return why the new slot is over its budget, empty when it is not."""
    if new.failed >= LEAST_ERRORS and new.failed > budget.max_error_share * new.requests:
        return f"{new.failed} of {new.requests} requests failed"
    if len(new.first_byte) < LEAST_REQUESTS or len(old.first_byte) < LEAST_REQUESTS:
        return ""
    allowed = max(old.percentile() * budget.max_slowdown, old.percentile() + FLOOR_SECONDS)
    if new.percentile() > allowed:
        return (
            f"its first byte takes {new.percentile():.2f} s at the 95th percentile, "
            f"the other's {old.percentile():.2f} s"
        )
    return ""
