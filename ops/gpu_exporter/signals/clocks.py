"""Clocks now and at most, and the performance state."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

MEGAHERTZ = 1e6
NOW = gauge("gpu_clock_hertz", "Clock now.", "clock")
HIGHEST = gauge("gpu_clock_max_hertz", "Highest clock.", "clock")
STATE = gauge("gpu_performance_state", "0 is the fastest, 15 the slowest.")
CLOCKS = {
    "graphics": nvml.NVML_CLOCK_GRAPHICS,
    "sm": nvml.NVML_CLOCK_SM,
    "memory": nvml.NVML_CLOCK_MEM,
    "video": nvml.NVML_CLOCK_VIDEO,
}
UNKNOWN_STATE = 32


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read them."""
    for name, number in CLOCKS.items():
        now = device.ask(nvml.nvmlDeviceGetClockInfo, number)
        yield from NOW.of(now, name, scale=MEGAHERTZ)
        highest = device.ask(nvml.nvmlDeviceGetMaxClockInfo, number)
        yield from HIGHEST.of(highest, name, scale=MEGAHERTZ)
    state = device.ask(nvml.nvmlDeviceGetPerformanceState)
    yield from STATE.of(None if state == UNKNOWN_STATE else state)


SIGNAL = Signal("clocks", (NOW, HIGHEST, STATE), read)
