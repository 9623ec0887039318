"""Do the same to several things at once, and tell all that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ops.errors import OpsError

Thing = TypeVar("Thing")


def together(things: Sequence[Thing], act: Callable[[Thing], None]) -> None:
    """Act on each at once; return when every one has ended.

    Raises:
        OpsError: One failed, or several: the message has them all.
    """
    if len(things) == 1:
        act(things[0])
        return
    with ThreadPoolExecutor(max_workers=max(1, len(things))) as pool:
        errors = [done.exception() for done in [pool.submit(act, thing) for thing in things]]
    failed = [error for error in errors if error is not None]
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise OpsError("\n".join(str(error) or repr(error) for error in failed))


def batches(things: Sequence[Thing], size: int) -> list[tuple[Thing, ...]]:
    """Cut a sequence into batches of a size, the last one perhaps smaller."""
    return [tuple(things[start : start + size]) for start in range(0, len(things), size)]
