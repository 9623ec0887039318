"""Why the clocks are lower than they could be, and for how long they were."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, counter, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

NANO = 1e-9
REASON = gauge("gpu_throttle_reason", "1 while this holds the clocks down.", "reason")
SECONDS = counter("gpu_throttled_seconds", "Time slowed since the driver was loaded.", "cause")
REASONS = {
    "idle": nvml.nvmlClocksEventReasonGpuIdle,
    "application_clocks": nvml.nvmlClocksEventReasonApplicationsClocksSetting,
    "sw_power_cap": nvml.nvmlClocksEventReasonSwPowerCap,
    "hw_slowdown": nvml.nvmlClocksEventReasonHwSlowdown,
    "sync_boost": nvml.nvmlClocksEventReasonSyncBoost,
    "sw_thermal": nvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hw_thermal": nvml.nvmlClocksEventReasonHwThermalSlowdown,
    "hw_power_brake": nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "display_clocks": nvml.nvmlClocksEventReasonDisplayClockSetting,
}
CAUSES = {
    "power": nvml.NVML_FI_DEV_PERF_POLICY_POWER,
    "thermal": nvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
}


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it. The function has an older name before driver 535, which newer ones keep."""
    bits = device.ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    if bits is not None:
        for name, bit in REASONS.items():
            yield from REASON.of(float(bool(bits & bit)), name)
    for name, number in CAUSES.items():
        yield from SECONDS.of(device.fields.get(number), name, scale=NANO)


SIGNAL = Signal("throttling", (REASON, SECONDS), read, tuple(CAUSES.values()))
