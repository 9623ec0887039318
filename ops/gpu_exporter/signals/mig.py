"""MIG: a GPU cut into instances, each with memory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

MODE = gauge("gpu_mig_mode", "1 while the GPU is cut into instances.")
PENDING = gauge("gpu_mig_mode_pending", "1 if it is after the next reset.")
INSTANCE = ("gpu_instance", "compute_instance")
INFO = gauge("gpu_mig_info", "A MIG device.", "mig_uuid", *INSTANCE, "profile")
TOTAL = gauge("gpu_mig_memory_total_bytes", "Memory of a MIG device.", *INSTANCE)
USED = gauge("gpu_mig_memory_used_bytes", "Memory of a MIG device in use.", *INSTANCE)


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it. A user without MIG's monitor capability sees the mode and the devices only."""
    modes = device.ask(nvml.nvmlDeviceGetMigMode)
    if modes is None:
        return
    yield from MODE.of(modes[0])
    yield from PENDING.of(modes[1])
    if modes[0]:
        for index in range(device.ask(nvml.nvmlDeviceGetMaxMigDeviceCount) or 0):
            handle = device.ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, index)
            if handle is not None:
                yield from _instance(replace(device, handle=handle))


def _instance(device: Device) -> Iterator[Sample]:
    place = (
        str(device.ask(nvml.nvmlDeviceGetGpuInstanceId)),
        str(device.ask(nvml.nvmlDeviceGetComputeInstanceId)),
    )
    _, _, profile = (device.ask(nvml.nvmlDeviceGetName) or "").rpartition("MIG ")
    yield from INFO.of(1, device.ask(nvml.nvmlDeviceGetUUID) or "", *place, profile)
    memory = device.ask(nvml.nvmlDeviceGetMemoryInfo)
    if memory is not None:
        yield from TOTAL.of(memory.total, *place)
        yield from USED.of(memory.used, *place)


SIGNAL = Signal("mig", (MODE, PENDING, INFO, TOTAL, USED), read)
