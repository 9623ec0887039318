"""A look at the fleet as JSON: the same keys from `ops status` and `ops top`. Pure."""

from __future__ import annotations

from typing import Any

from ops.live.rates import History
from ops.live.state import HostState
from ops.live.watch import Look

FORMAT = 1
"""Keys are added within a format, never taken away or given another meaning."""
OF_SLOT = (
    "running", "waiting", "kv_cache", "requests_per_second", "tokens_per_second",
    "prompt_tokens_per_second", "first_token_p95_seconds", "error_share", "seconds",
)  # fmt: skip
OF_APP = ("in_flight", "queued", "requests_per_second", "error_share", "seconds")


def record(look: Look, history: History | None = None) -> dict[str, Any]:
    """All of a look; with `history` also what happens per second."""
    return {
        "format": FORMAT,
        "at": round(look.at, 3),
        "well": look.well,
        "operation": look.operation.as_record() if look.operation else None,
        "hosts": [_host(state, history) for state in look.hosts],
    }


def _host(state: HostState, history: History | None) -> dict[str, Any]:
    found = state.as_record()
    if history is None:
        return found
    for name, model in found["models"].items():
        for slot, about in model["slots"].items():
            about["traffic"] = history.slot(state.host, name, slot).as_record(*OF_SLOT)
    for port, about in found["app"].items():
        about["traffic"] = history.instance(state.host, port).as_record(*OF_APP)
    found["refused_per_second"] = history.refused_per_second(state.host)
    return found
