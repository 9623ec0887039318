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

log = logging.getLogger(__name__)

WAIT_MS = 1000
PAUSE_S = 1.0
SILENT_S = 5.0
"""A watch that has not come back for so long hangs in the driver."""


@dataclass(frozen=True)
class Kind:
    """What an XID means.

    Attributes:
        action: What gets the GPU well: `reset`, `reboot`, `restart` (of the unit), `application`
            (nothing: the program's fault), or `other`.
        meaning: In NVIDIA's words.
    """

    action: str
    meaning: str


# Source of the meanings: NVIDIA's XID catalogue; of the actions: reference/gpu-alerts.md.
KINDS = {
    13: Kind("application", "Graphics engine exception"),
    31: Kind("application", "GPU memory page fault"),
    43: Kind("application", "GPU stopped processing"),
    45: Kind("application", "Preemptive cleanup, due to previous errors"),
    46: Kind("reset", "GPU stopped processing"),
    48: Kind("reset", "Double bit ECC error"),
    62: Kind("reset", "Internal micro-controller halt"),
    63: Kind("application", "Row remapping or page retirement recorded"),
    64: Kind("reset", "Row remapping or page retirement failed"),
    74: Kind("reset", "NVLink error"),
    79: Kind("reboot", "GPU has fallen off the bus"),
    92: Kind("other", "High rate of single bit ECC errors"),
    94: Kind("restart", "Contained ECC error"),
    95: Kind("reset", "Uncontained ECC error"),
    109: Kind("reset", "Context switch timeout"),
    110: Kind("reset", "Security fault"),
    119: Kind("reset", "GSP RPC timeout"),
    120: Kind("reset", "GSP error"),
    136: Kind("reset", "Link training failed"),
    140: Kind("reset", "Unrecovered ECC error"),
    143: Kind("reset", "GPU initialisation failed"),
    154: Kind("other", "GPU recovery action changed"),
    158: Kind("reset", "GPU fatal timeout"),
}
OTHER = Kind("other", "not in our catalogue")


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
