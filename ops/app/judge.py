"""Whether an instance with a new release does well enough for the others to follow. Pure."""

from __future__ import annotations

from ops.models.budget import LEAST_ERRORS, Sample


def judge(new: Sample, others: Sample, max_error_share: float) -> str:
    """Return why the new release is over its budget, empty when it is not.

    Args:
        new: What its instance did.
        others: What the instances beside it did meanwhile: an engine that fails, fails them all.
        max_error_share: What it may fail beyond them, 0 to 1.
    """
    if new.failed < LEAST_ERRORS:
        return ""
    usual = others.failed / others.requests if others.requests else 0.0
    if new.failed / new.requests <= usual + max_error_share:
        return ""
    return (
        f"{new.failed} of {new.requests} requests failed, "
        f"of the other instances' {others.failed} of {others.requests}"
    )
