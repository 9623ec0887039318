"""Lines of a stream from someone who may send anything: bounded in size and in number."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

HEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line beyond the bound, of which only the beginning was kept."""

    head: bytes


class Lines:
    """Cuts chunks into lines.

    Args:
        most: Bytes of a line; of a longer one nothing but its head is held.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes | TooLong]:
        """Take a chunk in; yield the lines that it completes, without their ends."""
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            self._add(part)
            yield self._take()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._most:
            self._parts.append(part)
        elif sum(map(len, self._parts)) > HEAD_BYTES or not self._parts:
            self._parts = [b"".join([*self._parts, part[:HEAD_BYTES]])[:HEAD_BYTES]]

    def _take(self) -> bytes | TooLong:
        line, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        return line if size <= self._most else TooLong(line[:HEAD_BYTES])


class Allowance:
    """So many per second, and that many at once."""

    def __init__(self, per_second: float, at_once: float) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._left = at_once
        self._seen = time.monotonic()

    def take(self) -> bool:
        """Return whether one more is within it."""
        now = time.monotonic()
        self._left = min(self._at_once, self._left + (now - self._seen) * self._per_second)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
