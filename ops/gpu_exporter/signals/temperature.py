"""Heat, and where this very device slows down and switches itself off."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

CELSIUS = gauge("gpu_temperature_celsius", "Temperature.", "sensor")
THRESHOLD = gauge(
    "gpu_temperature_threshold_celsius",
    "gpu_max and memory_max: slows softly; slowdown: slows hard; shutdown: switches itself off.",
    "threshold",
)
MARGIN = gauge("gpu_temperature_margin_celsius", "Degrees left until the device slows for heat.")
THRESHOLDS = {
    "shutdown": nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    "slowdown": nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    "gpu_max": nvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
    "memory_max": nvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
}
MARGINS = {
    "shutdown": nvml.NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT,
    "slowdown": nvml.NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT,
    "gpu_max": nvml.NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT,
}
"""The margin at which a threshold is reached: how devices since Ada may tell it."""


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it; where there is the margin of a threshold only, it is turned into degrees."""
    core = device.ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
    margin = device.ask(nvml.nvmlDeviceGetMarginTemperature)
    yield from CELSIUS.of(core, "gpu")
    yield from CELSIUS.of(device.fields.get(nvml.NVML_FI_DEV_MEMORY_TEMP) or None, "memory")
    yield from MARGIN.of(margin)
    for name, number in THRESHOLDS.items():
        found = device.ask(nvml.nvmlDeviceGetTemperatureThreshold, number)
        at = device.fields.get(MARGINS.get(name, 0))
        if found is None and core is not None and margin is not None and at is not None:
            found = core + margin - at
        yield from THRESHOLD.of(found, name)


SIGNAL = Signal(
    "temperature",
    (CELSIUS, THRESHOLD, MARGIN),
    read,
    (nvml.NVML_FI_DEV_MEMORY_TEMP, *MARGINS.values()),
)
