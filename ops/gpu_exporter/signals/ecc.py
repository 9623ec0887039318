"""Errors of the memory that ECC corrected, and those that it could not."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, counter, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

ENABLED = gauge("gpu_ecc_enabled", "1 while ECC is in force.")
PENDING = gauge("gpu_ecc_enabled_pending", "1 if ECC is in force after the next reset.")
ERRORS = counter(
    "gpu_ecc_errors",
    "Memory errors: volatile since the driver was loaded, aggregate in the GPU's life.",
    "error",
    "scope",
)
SRAM = gauge("gpu_ecc_sram_threshold_exceeded", "1 if SRAM errors ask for a replacement.")
COUNTERS = {
    ("corrected", "volatile"): nvml.NVML_FI_DEV_ECC_SBE_VOL_TOTAL,
    ("uncorrected", "volatile"): nvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
    ("corrected", "aggregate"): nvml.NVML_FI_DEV_ECC_SBE_AGG_TOTAL,
    ("uncorrected", "aggregate"): nvml.NVML_FI_DEV_ECC_DBE_AGG_TOTAL,
}
MODES = {
    ENABLED: nvml.NVML_FI_DEV_ECC_CURRENT,
    PENDING: nvml.NVML_FI_DEV_ECC_PENDING,
}


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read them; only a GPU with ECC in force has counters."""
    for metric, number in MODES.items():
        yield from metric.of(device.fields.get(number))
    if not device.fields.get(nvml.NVML_FI_DEV_ECC_CURRENT):
        return
    for labels, number in COUNTERS.items():
        yield from ERRORS.of(device.fields.get(number), *labels)
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    if device.ask(nvml.nvmlDeviceGetSramEccErrorStatus, byref(status)) is not None:
        yield from SRAM.of(status.bThresholdExceeded)


SIGNAL = Signal(
    "ecc", (ENABLED, PENDING, ERRORS, SRAM), read, (*MODES.values(), *COUNTERS.values())
)
