"""One GPU and the thread that reads it, so that a driver that hangs holds nobody else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pynvml as nvml

from ops.gpu_exporter.device import Device, Identity
from ops.gpu_exporter.metric import Sample
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals import FIELDS, SIGNALS
from ops.gpu_exporter.xid import Watch, Xids

log = logging.getLogger(__name__)

Condition = Literal["ok", "lost", "missing", "hung", "error"]
CONDITIONS: tuple[Condition, ...] = ("ok", "lost", "missing", "hung", "error")


@dataclass(frozen=True)
class Reading:
    """What a GPU gave.

    Attributes:
        condition: `ok`, `lost` or `error`.
        samples: Its signals.
        failed: Signals that could not be read though the GPU answers.
        ended: When, by the monotonic clock.
        seconds: How long it took.
    """

    condition: Condition
    samples: tuple[Sample, ...]
    failed: tuple[str, ...]
    ended: float
    seconds: float


class Gpu:
    """Reads one GPU when asked to, in a thread that does not outlive the process.

    Args:
        index: NVML's.
        owners: Who processes belong to.
        links_of: The NVLinks that a GPU of this UUID is known to have had.

    Attributes:
        identity: What it is; None until it said so.
        xids: Its XIDs.
        timeouts: How often it did not answer in time.
    """

    def __init__(
        self, index: int, owners: Owners, links_of: Callable[[str], set[int]] = lambda _: set()
    ) -> None:
        self.name = f"GPU {index}"
        self.index = index
        self.identity: Identity | None = None
        self.xids = Xids()
        self.timeouts = 0
        self._owners = owners
        self._links_of = links_of
        self._device: Device | None = None
        self._watch: Watch | None = None
        self._wanted = threading.Semaphore(0)
        self._changed = threading.Condition()
        self._busy = False
        self._overdue = False
        self._latest: Reading | None = None

    @property
    def watched(self) -> bool | None:
        """Whether its XIDs are being listened for; None where it has no such events."""
        return self._watch.up if self._watch else False

    @property
    def links_seen(self) -> set[int]:
        """NVLinks that were active at some time."""
        return set(self._device.links_seen) if self._device else set()

    @property
    def latest(self) -> Reading | None:
        """The last complete reading."""
        return self._latest

    def request(self) -> None:
        """Ask for a reading, unless one is on its way."""
        with self._changed:
            if not self._busy:
                self._busy = True
                self._wanted.release()

    def wait(self, until: float) -> bool:
        """Wait for the reading that was asked for.

        A reading that is overdue since an earlier scrape is not waited for again.

        Args:
            until: By the monotonic clock.

        Returns:
            Whether it is there.
        """
        with self._changed:
            left = 0.0 if self._overdue else max(0.0, until - time.monotonic())
            done = self._changed.wait_for(lambda: not self._busy, left)
            if not done and not self._overdue:
                log.warning("%s does not answer: the driver hangs", self.name)
            self._overdue = not done
            self.timeouts += not done
            return done

    def start(self) -> None:
        """Be ready to be asked."""
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def _run(self) -> None:
        """Read whenever asked."""
        before: Condition = "ok"
        while True:
            self._wanted.acquire()
            reading = self._read()
            if self._overdue:
                log.warning("%s answers again, after %.1f s", self.name, reading.seconds)
            if reading.condition != before:
                log.warning("%s: %s", self.name, reading.condition)
                before = reading.condition
            with self._changed:
                self._latest = reading
                self._busy = self._overdue = False
                self._changed.notify_all()

    def _read(self) -> Reading:
        began = time.monotonic()
        condition, samples, failed = self._signals()
        ended = time.monotonic()
        return Reading(condition, tuple(samples), tuple(failed), ended, ended - began)

    def _signals(self) -> tuple[Condition, list[Sample], list[str]]:
        samples: list[Sample] = []
        failed: list[str] = []
        try:
            device = self._open()
            device.fields = device.read_fields(FIELDS)
        except nvml.NVMLError as problem:
            return _condition_of(problem), samples, failed
        except Exception:  # a thread that ended would look like a driver that hangs
            log.exception("%s cannot be read", self.name)
            return "error", samples, failed
        for signal in SIGNALS:
            try:
                samples.extend(signal.read(device, self._owners))
            except nvml.NVMLError as problem:
                if problem.value == nvml.NVML_ERROR_GPU_IS_LOST:
                    return "lost", [], []
                log.debug("%s: %s: %s", self.name, signal.name, problem)
                failed.append(signal.name)
            except Exception:
                log.exception("%s: %s cannot be read", self.name, signal.name)
                failed.append(signal.name)
        return "ok", samples, failed

    def _open(self) -> Device:
        """The device: asked who it is at the first time that it answers, watched from then on."""
        if self._device is None:
            device = Device(nvml.nvmlDeviceGetHandleByIndex(self.index), self.index)
            self.identity = device.identify()
            device.links_seen |= self._links_of(self.identity.uuid)
            self._watch = Watch(device.handle, f"{self.name} {self.identity.uuid}", self.xids.add)
            self._watch.start()
            self._device = device
        return self._device


def _condition_of(problem: nvml.NVMLError) -> Condition:
    lost = problem.value == nvml.NVML_ERROR_GPU_IS_LOST
    log.debug("reading failed: %s", problem)
    return "lost" if lost else "error"
