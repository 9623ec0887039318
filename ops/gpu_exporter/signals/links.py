"""NVLink, and the fabric that NVSwitches make of it."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, counter, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

UP = gauge(
    "gpu_nvlink_up", "1 while the link is active; boards without a bridge have none.", "link"
)
LOST = gauge("gpu_nvlink_lost_links", "Links that were active at some time and are not now.")
ERRORS = counter("gpu_nvlink_errors", "Errors of all links of the GPU.", "error")
STATE = gauge("gpu_fabric_state", "1 not started, 2 in progress, 3 completed.")
HEALTHY = gauge("gpu_fabric_healthy", "1 while the fabric manager finds the GPU's part healthy.")
MOST_LINKS = nvml.NVML_NVLINK_MAX_LINKS
TOTALS = {
    nvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL: "replay",
    nvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL: "recovery",
    nvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL: "crc",
}
"""Before Hopper: of all links."""
OF_A_LINK = {
    nvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY: "replay",
    nvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY: "recovery",
    nvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC: "crc",
}
"""Since Hopper: of one."""
HEALTH = {1: 1.0, 2: 0.0, 3: 0.0}
"""NVML's summary: healthy, unhealthy, limited capacity; 0 says nothing."""


def read(device: Device, _: Owners) -> Iterator[Sample]:
    """Read it."""
    states = _states(device)
    for link, active in enumerate(states):
        yield from UP.of(float(active), str(link))
    device.links_seen.update(link for link, active in enumerate(states) if active)
    if states:
        lost = [link for link in device.links_seen if link >= len(states) or not states[link]]
        yield from LOST.of(len(lost))
        for error, count in _errors(device, len(states)).items():
            yield from ERRORS.of(count, error)
    yield from _fabric(device)


def _states(device: Device) -> list[bool]:
    states: list[bool] = []
    for link in range(MOST_LINKS):
        active = device.ask(nvml.nvmlDeviceGetNvLinkState, link)
        if active is None:
            break
        states.append(bool(active))
    return states


def _errors(device: Device, links: int) -> dict[str, float]:
    found = {name: device.fields[field] for field, name in TOTALS.items() if field in device.fields}
    if found:
        return found
    numbers = [(field, link) for field in OF_A_LINK for link in range(links)]
    for (field, _), count in device.read_fields(numbers).items():  # type: ignore[misc]
        name = OF_A_LINK[field]
        found[name] = found.get(name, 0) + count
    return found


def _fabric(device: Device) -> Iterator[Sample]:
    info = nvml.c_nvmlGpuFabricInfo_v3_t()
    if device.ask(nvml.nvmlDeviceGetGpuFabricInfoV, byref(info)) is None:
        return
    if info.state != nvml.NVML_GPU_FABRIC_STATE_NOT_SUPPORTED:  # one that stands alone has none
        yield from STATE.of(info.state)
        yield from HEALTHY.of(HEALTH.get(info.healthSummary))


SIGNAL = Signal("links", (UP, LOST, ERRORS, STATE, HEALTHY), read, tuple(TOTALS))
