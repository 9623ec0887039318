"""Memory taken out of use: pages retired (to Volta and Turing), rows remapped (since Ampere)."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Metric, Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

PAGES = gauge("gpu_retired_pages", "Memory pages retired.", "cause")
PAGES_PENDING = gauge("gpu_retired_pages_pending", "1 if a page waits for a reset.")
ROWS = gauge("gpu_remapped_rows", "Memory rows remapped to spare ones.", "cause")
PENDING = gauge("gpu_row_remap_pending", "1 if a row waits for a reset to be remapped.")
FAILED = gauge("gpu_row_remap_failed", "1 if a row could not be remapped: replace the GPU.")
BANKS = gauge("gpu_row_remap_banks", "Memory banks by the spare rows that they have left.", "spare")
READINGS: tuple[tuple[Metric, tuple[str, ...], int], ...] = (
    (PAGES, ("corrected",), nvml.NVML_FI_DEV_RETIRED_SBE),
    (PAGES, ("uncorrected",), nvml.NVML_FI_DEV_RETIRED_DBE),
    (PAGES_PENDING, (), nvml.NVML_FI_DEV_RETIRED_PENDING),
    (ROWS, ("corrected",), nvml.NVML_FI_DEV_REMAPPED_COR),
    (ROWS, ("uncorrected",), nvml.NVML_FI_DEV_REMAPPED_UNC),
    (PENDING, (), nvml.NVML_FI_DEV_REMAPPED_PENDING),
    (FAILED, (), nvml.NVML_FI_DEV_REMAPPED_FAILURE),
)
SPARES = ("max", "high", "partial", "low", "none")


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it; a GPU has the one or the other."""
    for metric, labels, number in READINGS:
        yield from metric.of(device.fields.get(number), *labels)
    banks = device.ask(nvml.nvmlDeviceGetRowRemapperHistogram)
    for spare in SPARES if banks else ():
        yield from BANKS.of(getattr(banks, spare), spare)


SIGNAL = Signal(
    "rows",
    (PAGES, PAGES_PENDING, ROWS, PENDING, FAILED, BANKS),
    read,
    tuple(number for _, _, number in READINGS),
)
