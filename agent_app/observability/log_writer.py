"""Writes log lines from a thread of its own, so that a stuck or full log never stops the service.

Lines wait in a bounded queue. What finds it full, or what the system refuses (a full disk, a
closed pipe), is dropped and counted in `agent_app_log_lines_dropped_total`.
"""

import errno
import logging
import os
import queue
import sys
import threading

from agent_app.observability import metrics

WAITING_LINES = 10_000
BATCH_BYTES = 65_536
CLOSE_SECONDS = 2.0

_REASONS = {errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.EPIPE: "closed"}


class LogWriter(logging.Handler):
    """Formats where it is called, writes elsewhere.

    Args:
        descriptor: Of the open file that takes the lines.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING_LINES)
        self._torn = False
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; never wait and never fail."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            metrics.LOG_LINES_DROPPED.labels("queue_full").inc()
        except Exception:
            metrics.LOG_LINES_DROPPED.labels("format").inc()

    def close(self) -> None:
        """Write what waits, for at most two seconds, and end."""
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=CLOSE_SECONDS)
            except queue.Full:
                pass
            else:
                self._thread.join(CLOSE_SECONDS)
        super().close()

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            batch, size, ended = [line], len(line), False
            while size < BATCH_BYTES and not self._lines.empty():
                following = self._lines.get()
                if following is None:
                    ended = True
                    break
                batch.append(following)
                size += len(following)
            self._write(batch)
            if ended:
                return

    def _write(self, batch: list[str]) -> None:
        data = ("\n" * self._torn + "\n".join(batch) + "\n").encode(errors="backslashreplace")
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, "refused")
            ends = data[:written].count(b"\n") - (self._torn and written > 0)
            metrics.LOG_LINES_DROPPED.labels(reason).inc(len(batch) - ends)
        if written:  # else the file is as it was
            self._torn = not data[:written].endswith(b"\n")


def standard_output() -> int:
    """Return the descriptor of standard output."""
    return sys.__stdout__.fileno() if sys.__stdout__ is not None else 1
