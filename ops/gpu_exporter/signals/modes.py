"""How the driver is set up for the GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

PERSISTENCE = gauge("gpu_persistence_mode", "1 while the driver stays initialised without clients.")
COMPUTE = gauge("gpu_compute_mode", "0 default, 2 prohibited, 3 exclusive process.")


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it."""
    yield from PERSISTENCE.of(device.ask(nvml.nvmlDeviceGetPersistenceMode))
    yield from COMPUTE.of(device.ask(nvml.nvmlDeviceGetComputeMode))


SIGNAL = Signal("modes", (PERSISTENCE, COMPUTE), read)
