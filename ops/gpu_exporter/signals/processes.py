"""Who holds the GPU's memory, so that memory which nobody should hold has a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pynvml as nvml

from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample, gauge
from ops.gpu_exporter.owners import Owners
from ops.gpu_exporter.signals.signal import Signal

HELD = gauge(
    "gpu_process_memory_bytes",
    "Memory that a process holds, with its unit and its engine's slot; known: of an expected unit.",
    *("pid", "process", "kind", "unit", "model", "slot", "known", "gpu_instance"),
)
ORPHANED = gauge(
    "gpu_orphaned_memory_bytes",
    "Memory of no expected unit: by a process of another unit, a dead one, or none at all.",
    "cause",
)
LISTS = {
    "compute": nvml.nvmlDeviceGetComputeRunningProcesses,
    "mps": nvml.nvmlDeviceGetMPSComputeRunningProcesses,
    "graphics": nvml.nvmlDeviceGetGraphicsRunningProcesses,
}
NO_INSTANCE = 0xFFFFFFFF


@dataclass(frozen=True)
class Process:
    """A process on the GPU; `held` is None where NVML does not tell."""

    pid: int
    kind: str
    held: int | None
    gpu_instance: int


def read(device: Device, owners: Owners) -> Iterator[Sample]:
    """Read it; what no process accounts for is told only where all processes do."""
    found = _processes(device)
    if found is None:
        return
    orphaned = {"unknown_unit": 0, "dead_process": 0}
    for process in found:
        owner = owners.of(process.pid)
        if owner.cause:
            orphaned[owner.cause] += process.held or 0
        instance = "" if process.gpu_instance == NO_INSTANCE else str(process.gpu_instance)
        yield from HELD.of(
            process.held,
            str(process.pid),
            owner.process,
            process.kind,
            owner.unit,
            owner.model,
            owner.slot,
            "false" if owner.cause else "true",
            instance,
        )
    for cause, size in orphaned.items():
        yield from ORPHANED.of(size, cause)
    memory = device.ask(nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlMemory_v2)
    if memory is not None and all(process.held is not None for process in found):
        held = sum(process.held or 0 for process in found)
        yield from ORPHANED.of(max(0, memory.used - held), "no_process")


def _processes(device: Device) -> list[Process] | None:
    """Each process once, though one that draws and computes is in two of NVML's lists."""
    found: dict[tuple[int, int], Process] = {}
    lists = {kind: device.ask(function) for kind, function in LISTS.items()}
    if all(entries is None for entries in lists.values()):
        return None
    for kind, entries in lists.items():
        for entry in entries or ():
            place = (entry.pid, entry.gpuInstanceId)
            if place not in found:
                found[place] = Process(entry.pid, kind, entry.usedGpuMemory, entry.gpuInstanceId)
    return list(found.values())


SIGNAL = Signal("processes", (HELD, ORPHANED), read)
