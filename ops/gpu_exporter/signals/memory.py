"""Frame buffer and BAR1."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

TOTAL = gauge("gpu_memory_total_bytes", "Frame buffer.")
USED = gauge("gpu_memory_used_bytes", "Frame buffer in use, without the driver's reserve.")
FREE = gauge("gpu_memory_free_bytes", "Frame buffer that may be allocated.")
RESERVED = gauge("gpu_memory_reserved_bytes", "Frame buffer that the driver keeps for itself.")
BAR1_TOTAL = gauge("gpu_bar1_total_bytes", "Window through which the host sees GPU memory.")
BAR1_USED = gauge("gpu_bar1_used_bytes", "BAR1 in use.")


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it; drivers before 510 count their reserve as used."""
    memory = device.ask(nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlMemory_v2)
    if memory is not None:
        yield from RESERVED.of(memory.reserved)
    else:
        memory = device.ask(nvml.nvmlDeviceGetMemoryInfo)
    if memory is not None:
        yield from TOTAL.of(memory.total)
        yield from USED.of(memory.used)
        yield from FREE.of(memory.free)
    bar1 = device.ask(nvml.nvmlDeviceGetBAR1MemoryInfo)
    if bar1 is not None:
        yield from BAR1_TOTAL.of(bar1.bar1Total)
        yield from BAR1_USED.of(bar1.bar1Used)


SIGNAL = Signal("memory", (TOTAL, USED, FREE, RESERVED, BAR1_TOTAL, BAR1_USED), read)
