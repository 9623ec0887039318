"""Bounded label values: what comes from outside never makes a new time series."""

from collections.abc import MutableMapping
from typing import Any

MOST_KEYS = 200
"""Keys with time series of their own in one process.

Each costs five per model, about 600 bytes of every scrape; 200 keys on three models are 3,000
series, as much as all the rest of a host's exporters together. Prometheus needs the keys that an
alert names; the exact account of all of them is in PostgreSQL (`agent-app usage`).
"""
OTHER = "other"
UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_keys: set[str] = set()


def key_label(name: str) -> str:
    """Return a key's label: its name for the first 200 that a process serves, else `other`."""
    if name in _keys:
        return name
    if len(_keys) >= MOST_KEYS:
        return OTHER
    _keys.add(name)
    return name


def route_label(scope: MutableMapping[str, Any]) -> str:
    """Return the template of a request's route, `unmatched` where it met none."""
    return getattr(scope.get("route"), "path", None) or UNMATCHED


def method_label(scope: MutableMapping[str, Any]) -> str:
    """Return a request's method; HTTP lets a client invent any."""
    method = str(scope["method"])
    return method if method in _METHODS else OTHER
