"""Fans, where the board has any."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

SPEED = gauge("gpu_fan_speed_ratio", "Intended speed of a fan.", "fan")


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it."""
    for fan in range(device.ask(nvml.nvmlDeviceGetNumFans) or 0):
        yield from SPEED.of(device.ask(nvml.nvmlDeviceGetFanSpeed_v2, fan), str(fan), scale=0.01)


SIGNAL = Signal("fans", (SPEED,), read)
