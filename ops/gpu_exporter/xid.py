"""XID errors of the driver, counted as they happen.

An event is what NVML hands out once: a gauge of the last XID would never clear, and would hide the
second of two. Every XID of the catalogue is on the page at 0 from the start, because `increase()`
sees no growth in a series that begins with its first error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml as nvml

from ops.gpu_exporter.xid_kinds import KINDS, OTHER

log = logging.getLogger(__name__)

WAIT_MS = 1000
PAUSE_S = 1.0
SILENT_S = 5.0
"""A watch that has not come back for so long hangs in the driver."""


@dataclass
class Count:
    """How often an XID came, and when last, in seconds since 1970 (0: never)."""

    number: int = 0
    last: float = 0.0


class Xids:
    """The XIDs of one GPU; counted by its watch, read by scrapes."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._counts = {code: Count() for code in KINDS}
        self._latest = 0

    def add(self, code: int) -> None:
        """Count one."""
        with self._guard:
            count = self._counts.setdefault(code, Count())
            count.number += 1
            count.last = time.time()
            self._latest = code

    def counts(self) -> dict[int, Count]:
        """All of the catalogue, and what else came."""
        with self._guard:
            return {code: Count(each.number, each.last) for code, each in self._counts.items()}

    @property
    def latest(self) -> int:
        """The last that came; 0 if none did."""
        return self._latest


class Watch:
    """Waits for the XIDs of one GPU.

    A thread and an event set for each GPU: a set with several fails as a whole when one is lost.

    Args:
        handle: NVML's handle of the GPU.
        name: The GPU's name in the log.
        seen: Called with each XID.
    """

    def __init__(self, handle: Any, name: str, seen: Callable[[int], None]) -> None:
        self._handle = handle
        self._gpu = name
        self._seen = seen
        self._heard = 0.0
        self._supported = True

    @property
    def up(self) -> bool | None:
        """Whether it listens: NVML answered it lately. None where the GPU has no such events."""
        return time.monotonic() - self._heard < SILENT_S if self._supported else None

    def start(self) -> threading.Thread:
        """Listen in a thread of its own; returns it."""
        thread = threading.Thread(target=self._run, name=f"xid {self._gpu}", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        """Listen for as long as the process lives; a lost GPU may come back."""
        while True:
            try:
                events = nvml.nvmlEventSetCreate()
                kinds = nvml.nvmlEventTypeXidCriticalError
                nvml.nvmlDeviceRegisterEvents(self._handle, kinds, events)
            except nvml.NVMLError as problem:
                log.warning("%s: no XID events: %s", self._gpu, problem)
                if problem.value == nvml.NVML_ERROR_NOT_SUPPORTED:
                    self._supported = False
                    return
            else:
                self._listen(events)
            time.sleep(PAUSE_S)

    def _listen(self, events: Any) -> None:
        """Hand on events until the set is of no more use."""
        while True:
            try:
                event = nvml.nvmlEventSetWait_v2(events, WAIT_MS)
            except nvml.NVMLError as problem:
                if problem.value == nvml.NVML_ERROR_TIMEOUT:
                    self._heard = time.monotonic()
                elif problem.value == nvml.NVML_ERROR_GPU_IS_LOST:
                    time.sleep(PAUSE_S)  # the same set goes on if the GPU does
                else:
                    log.warning("%s: waiting for XIDs failed: %s", self._gpu, problem)
                    return
            else:
                self._heard = time.monotonic()
                if event.eventType == nvml.nvmlEventTypeXidCriticalError:
                    code = int(event.eventData)
                    kind = KINDS.get(code, OTHER)
                    log.error("%s: XID %d, %s: %s", self._gpu, code, kind.meaning, kind.action)
                    self._seen(code)
