"""How much of the time the GPU's engines work."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

PERCENT = 0.01
GPU = gauge("gpu_utilization_ratio", "Share of the time in which a kernel ran; absent under MIG.")
MEMORY = gauge("gpu_memory_utilization_ratio", "Share of the time in which memory was accessed.")
ENGINE = gauge("gpu_engine_utilization_ratio", "Share of the time an engine worked.", "engine")
ENGINES = {
    "encoder": nvml.nvmlDeviceGetEncoderUtilization,
    "decoder": nvml.nvmlDeviceGetDecoderUtilization,
    "jpeg": nvml.nvmlDeviceGetJpgUtilization,
    "ofa": nvml.nvmlDeviceGetOfaUtilization,
}


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it; the period over which it is taken is the driver's, a sixth of a second to one."""
    rates = device.ask(nvml.nvmlDeviceGetUtilizationRates)
    if rates:
        yield from GPU.of(rates.gpu, scale=PERCENT)
        yield from MEMORY.of(rates.memory, scale=PERCENT)
    for name, function in ENGINES.items():
        found = device.ask(function)
        if found:
            yield from ENGINE.of(found[0], name, scale=PERCENT)


SIGNAL = Signal("utilization", (GPU, MEMORY, ENGINE), read)
