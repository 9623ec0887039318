"""Power, its limits, and the energy used."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, counter, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

MILLI = 1e-3
DRAW = gauge("gpu_power_watts", "Power draw.")
LIMIT = gauge(
    "gpu_power_limit_watts", "Power limit: the one in force, and what may be set.", "limit"
)
ENERGY = counter("gpu_energy_joules", "Energy used since the driver was loaded.")


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it."""
    yield from DRAW.of(device.ask(nvml.nvmlDeviceGetPowerUsage), scale=MILLI)
    lowest, highest = device.ask(nvml.nvmlDeviceGetPowerManagementLimitConstraints) or (None, None)
    limits = {
        "enforced": device.ask(nvml.nvmlDeviceGetEnforcedPowerLimit),
        "default": device.ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit),
        "min": lowest,
        "max": highest,
    }
    for name, value in limits.items():
        yield from LIMIT.of(value, name, scale=MILLI)
    energy = device.fields.get(nvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION)
    yield from ENERGY.of(energy, scale=MILLI)


SIGNAL = Signal("power", (DRAW, LIMIT, ENERGY), read, (nvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,))
