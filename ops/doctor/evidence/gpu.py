"""What the kernel, the driver's files and the driver itself tell of GPUs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from ops.doctor.evidence.command import TIMED_OUT, ask, first, read, rows
from ops.doctor.evidence.gpu_hardware import (
    bootable_kernels,
    gpus,
    has_nvswitch,
    installed_module,
    loaded_driver,
    nouveau_is_loaded,
    secure_boot,
)

SMI_SECONDS = 20.0
NO_DRIVER = ("Failed to initialize NVML", "NVIDIA-SMI has failed", "No devices were found")
"""nvidia-smi's words where it is the driver that fails, and not one of its GPUs."""
GPU_FIELDS = ("index", "name", "uuid", "pci.bus_id", "memory.total", "memory.used",
              "temperature.gpu", "utilization.gpu", "driver_version")  # fmt: skip
HEALTH_FIELDS = (
    "persistence_mode",
    "compute_mode",
    "compute_cap",
    "ecc.errors.uncorrected.volatile.total",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "mig.mode.current",
    "mig.mode.pending",
    "clocks_event_reasons.hw_thermal_slowdown",
    "clocks_event_reasons.hw_power_brake_slowdown",
    "remapped_rows.pending",
    "remapped_rows.failure",
    "temperature.gpu.tlimit",
    "gpu_recovery_action",
    "fabric.state",
)
"""Older drivers do not know all of them, and refuse a query for one that they do not."""
APP_FIELDS = ("gpu_uuid", "pid", "used_memory", "process_name")
FORMAT = "--format=csv,noheader,nounits"
LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib",
             "/usr/lib/wsl/lib", "/lib/x86_64-linux-gnu")  # fmt: skip
CUDA_PROBE = """
import ctypes
library = ctypes.CDLL("libcuda.so.1")
code = library.cuInit(0)
count = ctypes.c_int(0)
if code == 0:
    code = library.cuDeviceGetCount(ctypes.byref(count))
name = ctypes.c_char_p(b"")
library.cuGetErrorName(code, ctypes.byref(name))
print(code, (name.value or b"").decode(), count.value)
"""
"""cuInit takes no memory of a GPU; it tells what NVML cannot: the fabric, UVM, the libraries."""
CENSUS = "/var/lib/gpu_exporter/gpus.json"
KILL = 1 << 8


def gather(unit_of: Any) -> dict[str, Any]:
    """Return all of it.

    Args:
        unit_of: Gives a process's systemd unit, "" for none.
    """
    kernel = os.uname().release
    kernels = bootable_kernels() or [kernel]
    loaded = loaded_driver()
    found: dict[str, Any] = {
        "devices": gpus(),
        "kernel": kernel,
        "next_kernel": kernels[-1],
        "loaded": vars(loaded) if loaded else None,
        "installed": module(kernel),
        "installed_next": module(kernels[-1]),
        "nouveau": nouveau_is_loaded(),
        "secure_boot": secure_boot(),
        "nvswitch": has_nvswitch(),
        "nodes": node_names(),
        "libraries": libraries(),
        "dkms": ask("dkms", "status").output.strip() if shutil.which("dkms") else "",
        "headers": Path(f"/lib/modules/{kernel}/build").exists(),
        "expected": expected(),
        "tools": tools(),
        "container": containers(),
    }
    if not (found["devices"] or loaded or found["nodes"]):
        return found
    return {**found, **driver(found, unit_of)}


def driver(found: dict[str, Any], unit_of: Any) -> dict[str, Any]:
    """Return what the driver itself tells; one that hangs is asked no further."""
    smi = ask("nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", FORMAT, seconds=SMI_SECONDS)
    told: dict[str, Any] = {"smi": smi.as_record(), "gpus": rows(smi.output, GPU_FIELDS)}
    if smi.status == TIMED_OUT or smi.missing:
        return told
    if smi.status and not any(words in smi.output for words in NO_DRIVER):
        told["gpus"], told["lost"] = one_by_one(len(numbered(found["nodes"])))
    if not told["gpus"]:
        return told
    found = health([about["index"] for about in told["gpus"]])
    for about in told["gpus"]:
        about.update(found.get(about["uuid"], {}))
    told["processes"] = processes(unit_of)
    told["nvlink"] = ask("nvidia-smi", "nvlink", "-s").output if len(told["gpus"]) > 1 else ""
    told["cuda"] = cuda()
    return told


def module(kernel: str) -> dict[str, str] | None:
    """Return the module that a kernel would load; None where that cannot be told either."""
    try:
        found = installed_module(kernel)
    except OSError:  # no modinfo, as in a container
        return None
    return vars(found) if found else None


def one_by_one(count: int) -> tuple[list[dict[str, str]], list[str]]:
    """Ask GPU by GPU, since one that is lost ends the list; return those that answer, and why not.

    Args:
        count: How many there are.
    """
    here, lost = [], []
    for index in range(count):
        query = f"--query-gpu={','.join(GPU_FIELDS)}"
        done = ask("nvidia-smi", "-i", str(index), query, FORMAT, seconds=SMI_SECONDS)
        answer = rows(done.output, GPU_FIELDS) if done.status == 0 else []
        if answer:
            here += answer
        else:
            lost.append(f"GPU {index}: {(done.lines or [f'status {done.status}'])[0]}")
        if done.status == TIMED_OUT:
            break
    return here, lost


def health(indexes: list[str]) -> dict[str, dict[str, str]]:
    """Return the health of GPUs by UUID, in the fields that their driver knows.

    Args:
        indexes: Those that answer.
    """
    fields = ["uuid", *HEALTH_FIELDS]
    while True:
        query = f"--query-gpu={','.join(fields)}"
        done = ask("nvidia-smi", "-i", ",".join(indexes), query, FORMAT, seconds=SMI_SECONDS)
        unknown = first(r'Field "([^"]+)" is not a valid field', done.output)
        if done.status == 0 or unknown not in fields:
            break
        fields.remove(unknown)
    found = {row["uuid"]: row for row in rows(done.output, fields)} if done.status == 0 else {}
    if "remapped_rows.pending" not in fields:
        for row in remapped():
            found.setdefault(row["gpu_uuid"], {}).update(row)
    return found


def remapped() -> list[dict[str, str]]:
    """Return the remapped rows, of which some drivers tell by a query of their own."""
    fields = ("gpu_uuid", "remapped_rows.pending", "remapped_rows.failure")
    done = ask("nvidia-smi", f"--query-remapped-rows={','.join(fields)}", FORMAT)
    return rows(done.output, fields) if done.status == 0 else []


def processes(unit_of: Any) -> list[dict[str, Any]]:
    """Return the processes that hold GPU memory, with unit and whether they have ended."""
    done = ask("nvidia-smi", f"--query-compute-apps={','.join(APP_FIELDS)}", FORMAT)
    found = []
    for row in rows(done.output, APP_FIELDS):
        pid = row["pid"].strip()
        status = read(f"/proc/{pid}/status")
        pending = first(r"^ShdPnd:\s*(\S+)", status) or "0"
        ended = first(r"^State:\s*(\w)", status) in ("Z", "X") or int(pending, 16) & KILL
        found.append(
            {
                **row,
                "unit": unit_of(int(pid)) if pid.isdigit() else "",
                "name": first(r"^Name:\s*(.*)", status),
                "dead": not status or bool(ended),
            }
        )
    return found


def cuda() -> dict[str, Any] | None:
    """Return how CUDA's own driver library opens; None where there is none."""
    done = ask(sys.executable or "python3", "-c", CUDA_PROBE, seconds=SMI_SECONDS)
    answer = re.search(r"^(\d+) (\w*) (\d+)$", done.output, re.MULTILINE)
    if answer:
        return {"code": int(answer[1]), "error": answer[2], "count": int(answer[3])}
    if done.status == TIMED_OUT:
        return {"code": -1, "error": f"no answer in {SMI_SECONDS:.0f} s", "count": 0}
    return None


def node_names() -> list[str]:
    """Return the driver's device nodes by name."""
    return sorted(path.name for path in Path("/dev").glob("nvidia*"))


def libraries() -> dict[str, list[str]]:
    """Return the versions of the driver's libraries on disk, by their file names."""
    found = {}
    for name in ("libnvidia-ml.so", "libcuda.so"):
        paths = [str(p) for folder in LIBRARIES for p in Path(folder).glob(f"{name}.*.*")]
        versions = {first(r"\.so\.(\d+\.\d+(?:\.\d+)?)$", path) for path in paths}
        found[name] = sorted(versions - {""})
    return found


def numbered(nodes: list[str]) -> list[str]:
    """Return the device nodes of GPUs: nvidia0, nvidia1 …"""
    return [name for name in nodes if re.fullmatch(r"nvidia\d+", name)]


def expected() -> int:
    """Return how many GPUs the exporter has ever seen here; 0: it says nothing."""
    try:
        seen = json.loads(read(CENSUS) or "[]")
    except ValueError:
        return 0
    return len(seen) if isinstance(seen, list) else 0


def tools() -> dict[str, str]:
    """Return where the tools are that engines call to compile kernels; empty where missing."""
    beside = {name: f"/usr/local/cuda/bin/{name}" for name in ("nvcc", "ptxas")}
    found = {name: shutil.which(name) or "" for name in ("nvcc", "ptxas", "cc", "g++", "ninja")}
    for name, path in beside.items():
        found[name] = found[name] or (path if Path(path).exists() else "")
    return found


def containers() -> dict[str, Any]:
    """Return which container runtimes there are and whether they know of the GPUs."""
    specs = [
        path for folder in ("/etc/cdi", "/var/run/cdi") for path in Path(folder).glob("nvidia*")
    ]
    return {
        "runtimes": [name for name in ("docker", "podman") if shutil.which(name)],
        "toolkit": bool(shutil.which("nvidia-ctk")),
        "cdi": sorted(map(str, specs)),
        "docker_runtime": "nvidia" in read("/etc/docker/daemon.json"),
    }
