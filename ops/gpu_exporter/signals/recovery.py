"""What the driver itself asks for to get a GPU well again."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

ACTION = gauge(
    "gpu_recovery_action", "0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset (driver 570)."
)


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it."""
    yield from ACTION.of(device.fields.get(nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION))


SIGNAL = Signal("recovery", (ACTION,), read, (nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,))
