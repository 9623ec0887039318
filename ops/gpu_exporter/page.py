"""The page: what all GPUs say by one deadline, and what is true of those that do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from ops.gpu_exporter import VERSION, dcgm
from ops.gpu_exporter.census import Census
from ops.gpu_exporter.device import Identity
from ops.gpu_exporter.driver import Driver
from ops.gpu_exporter.gpu import CONDITIONS, Condition, Gpu, Reading
from ops.gpu_exporter.metric import GPU_LABELS, Metric, Sample, counter, gauge
from ops.gpu_exporter.owners import KNOWN_UNITS, Owners
from ops.gpu_exporter.signals import SIGNALS
from ops.gpu_exporter.xid_kinds import KINDS, OTHER

DRIVER_UP = gauge("gpu_driver_up", "1 while NVML is open on a loaded driver.")
DRIVER_ERROR = gauge("gpu_driver_error", "Why NVML is not open; absent while it is.", "error")
DRIVER_INFO = gauge(
    "gpu_driver_info",
    "Versions of driver, library and CUDA as NVML has them, and of the loaded module.",
    *("driver_version", "nvml_version", "cuda_version", "module_version"),
)
REPLACED = gauge(
    "gpu_driver_library_replaced",
    "1 if the library on disk is not the one that was loaded: programs started now may fail.",
)
EXPECTED = gauge("gpu_expected", "GPUs of the inventory, or ever seen here if those are more.")
PRESENT = gauge("gpu_present", "GPUs that answered this scrape.")
EXPORTER = gauge("gpu_exporter_info", "This exporter.", "version")
HOST_METRICS = (DRIVER_UP, DRIVER_ERROR, DRIVER_INFO, REPLACED, EXPECTED, PRESENT, EXPORTER)

INFO = gauge(
    "gpu_info",
    "What the GPU is.",
    *("name", "pci_bus_id", "serial", "vbios_version", "compute_capability"),
)
UP = gauge("gpu_up", "1 if the GPU answered this scrape in time.")
CONDITION = gauge(
    "gpu_condition",
    "ok; lost: fell off the bus; missing: was seen and is not there; hung: no answer; error.",
    "condition",
)
STALE = gauge("gpu_stale", "1 while readings are older than this scrape, or too old to be shown.")
AGE = gauge("gpu_reading_age_seconds", "Age of the last complete reading.")
DURATION = gauge("gpu_reading_duration_seconds", "How long the last complete reading took.")
TIMEOUTS = counter("gpu_reading_timeouts", "Scrapes that the GPU did not answer in time.")
FAILED = gauge("gpu_signal_failed", "1 for a signal that could not be read.", "signal")
XIDS = counter("gpu_xid_errors", "XID errors since the exporter started.", "xid", "class")
LAST_XID = gauge("gpu_xid_last_timestamp_seconds", "When this XID last came.", "xid")
WATCHED = gauge("gpu_xid_watch_up", "1 while XIDs of the GPU are being listened for.")
STATE_METRICS = (
    *(INFO, UP, CONDITION, STALE, AGE, DURATION, TIMEOUTS, FAILED),
    *(XIDS, LAST_XID, WATCHED),
)
METRICS = (*STATE_METRICS, *(metric for signal in SIGNALS for metric in signal.metrics))
"""Of each GPU, in the order of the page."""


@dataclass(frozen=True)
class Settings:
    """What a person decides.

    Attributes:
        expected: GPUs that the inventory says there are; 0 says nothing.
        deadline_s: A GPU that has not answered a scrape by then counts as hung.
        keep_s: Readings of a hung GPU are shown until they are so old.
        known_units: Globs of units that may hold GPU memory.
        state: Folder for what outlives the process; None for nothing.
        dcgm: Show the names of dcgm-exporter as well.
        procfs: Where /proc is.
    """

    expected: int = 0
    deadline_s: float = 2.0
    keep_s: float = 60.0
    known_units: tuple[str, ...] = KNOWN_UNITS
    state: Path | None = None
    dcgm: bool = False
    procfs: Path = Path("/proc")


@dataclass
class Row:
    """One GPU on the page: a reader of this process, or a memory."""

    identity: Identity
    condition: Condition
    reading: Reading | None = None
    gpu: Gpu | None = None
    samples: list[Sample] = field(default_factory=list)

    @property
    def labels(self) -> tuple[str, str]:
        """Values of GPU_LABELS."""
        return str(self.identity.index), self.identity.uuid


class Page(Collector):
    """What a scrape shows.

    Args:
        settings: What a person decides.
        owners: Who processes belong to; made from the settings without it.
    """

    def __init__(self, settings: Settings, owners: Owners | None = None) -> None:
        self._settings = settings
        self._owners = owners or Owners(settings.known_units, settings.procfs)
        self._census = Census(settings.state, settings.expected)
        self._scrape = threading.Lock()
        self.driver = Driver(
            lambda index: Gpu(index, self._owners, self._census.links_of), settings.procfs
        )

    def describe(self) -> Iterable[Family]:
        """Nothing: without this, registering would scrape."""
        return ()

    def collect(self) -> Iterator[Family]:
        """The page of now, by the deadline."""
        with self._scrape:  # readings are shared, and scrapes are short
            rows = self._rows()
        yield from self._host(rows)
        found: dict[Metric, list[tuple[tuple[str, ...], float]]] = {each: [] for each in METRICS}
        for row in rows:
            for metric, value, labels in row.samples:
                found[metric].append(((*row.labels, *labels), value))
        for metric, samples in found.items():
            if samples:
                yield _family(metric, GPU_LABELS, samples)
        if self._settings.dcgm:
            yield from dcgm.families(rows, self.driver.versions.driver)

    def _rows(self) -> list[Row]:
        gpus, now = self.driver.gpus, time.monotonic()
        for gpu in gpus:
            gpu.request()
        answered = [gpu.wait(now + self._settings.deadline_s) for gpu in gpus]
        rows = [self._row(gpu, done) for gpu, done in zip(gpus, answered, strict=True)]
        for row in rows:
            if row.gpu and row.gpu.identity:
                self._census.meet(row.identity, row.gpu.links_seen)
        missing = self._census.missing(row.identity.uuid for row in rows)
        rows += [Row(identity, "missing") for identity in missing]
        for row in rows:
            row.samples = list(self._samples(row))
        return rows

    def _row(self, gpu: Gpu, answered: bool) -> Row:
        identity = gpu.identity or self._remembered(gpu.index)
        reading = gpu.latest
        if not answered or reading is None:
            return Row(identity, "hung", reading, gpu)
        return Row(identity, reading.condition, reading, gpu)

    def _remembered(self, index: int) -> Identity:
        """A GPU that never said who it is, by its place."""
        here = [gpu.identity.uuid for gpu in self.driver.gpus if gpu.identity]
        for identity in self._census.missing(here):
            if identity.index == index:
                return identity
        return Identity(index=index, uuid="")

    def _samples(self, row: Row) -> Iterator[Sample]:
        identity, gpu, reading = row.identity, row.gpu, row.reading
        yield from INFO.of(
            1,
            identity.name,
            identity.pci_bus_id,
            identity.serial,
            identity.vbios_version,
            identity.compute_capability,
        )
        fresh = row.condition == "ok"
        yield from UP.of(float(fresh))
        for condition in CONDITIONS:
            yield from CONDITION.of(float(condition == row.condition), condition)
        yield from STALE.of(float(not fresh))
        if gpu:
            yield from self._history(gpu)
        if reading is None:
            return
        age = time.monotonic() - reading.ended
        yield from AGE.of(age)
        yield from DURATION.of(reading.seconds)
        for signal in reading.failed:
            yield from FAILED.of(1, signal)
        if age < self._settings.keep_s:
            yield from reading.samples

    @staticmethod
    def _history(gpu: Gpu) -> Iterator[Sample]:
        yield from TIMEOUTS.of(gpu.timeouts)
        yield from WATCHED.of(gpu.watched)
        for code, count in gpu.xids.counts().items():
            yield from XIDS.of(count.number, str(code), KINDS.get(code, OTHER).action)
            yield from LAST_XID.of(count.last or None, str(code))

    def _host(self, rows: list[Row]) -> Iterator[Family]:
        driver, module = self.driver, self.driver.module_version()
        versions = driver.versions
        error = driver.error or ("" if module else "driver_not_loaded")
        present = sum(row.condition == "ok" for row in rows)
        yield _family(DRIVER_UP, (), [((), float(not error))])
        if error:
            yield _family(DRIVER_ERROR, (), [((error,), 1)])
        numbers = (versions.driver, versions.nvml, versions.cuda, module)
        yield _family(DRIVER_INFO, (), [(numbers, 1)])
        yield _family(REPLACED, (), [((), float(driver.library_replaced()))])
        yield _family(EXPECTED, (), [((), max(self._census.expected, len(driver.gpus)))])
        yield _family(PRESENT, (), [((), present)])
        yield _family(EXPORTER, (), [((VERSION,), 1)])


def _family(
    metric: Metric, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], float]]
) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=(*labels, *metric.labels))
    for values, value in samples:
        family.add_metric(values, value)
    return family
