"""The link to the host."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, counter, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

GENERATION = gauge("gpu_pcie_link_generation", "PCIe generation now; idle GPUs go down to 1.")
GENERATION_MAX = gauge("gpu_pcie_link_generation_max", "PCIe generation that GPU and slot reach.")
WIDTH = gauge("gpu_pcie_link_width", "PCIe lanes now.")
WIDTH_MAX = gauge("gpu_pcie_link_width_max", "PCIe lanes that GPU and slot reach.")
REPLAYS = counter("gpu_pcie_replays", "PCIe packets sent again; a bad riser or slot makes many.")
SENT = counter("gpu_pcie_transmitted_bytes", "Bytes that the GPU sent.")
RECEIVED = counter("gpu_pcie_received_bytes", "Bytes that the GPU received.")
READINGS = {
    GENERATION: nvml.nvmlDeviceGetCurrPcieLinkGeneration,
    GENERATION_MAX: nvml.nvmlDeviceGetMaxPcieLinkGeneration,
    WIDTH: nvml.nvmlDeviceGetCurrPcieLinkWidth,
    WIDTH_MAX: nvml.nvmlDeviceGetMaxPcieLinkWidth,
}
COUNTERS = {
    REPLAYS: nvml.NVML_FI_DEV_PCIE_REPLAY_COUNTER,
    SENT: nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
    RECEIVED: nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
}


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it, but for nvmlDeviceGetPcieThroughput, which measures for 20 ms at every call."""
    for metric, function in READINGS.items():
        yield from metric.of(device.ask(function))
    for metric, number in COUNTERS.items():
        yield from metric.of(device.fields.get(number))


SIGNAL = Signal("pcie", (*READINGS, *COUNTERS), read, tuple(COUNTERS.values()))
