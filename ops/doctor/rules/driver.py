"""The NVIDIA driver: is it there, loaded, of one version, and does CUDA open?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ops.doctor.finding import CRITICAL, INFO, WARNING, Case, Finding, dated

SUBJECT = "driver"
TIMED_OUT, MISSING = 124, 127

NOT_INSTALLED = Case(
    "driver-not-installed",
    CRITICAL,
    "{count} NVIDIA GPU(s) on the bus and no driver for them",
    "no kernel module and no nvidia-smi: the driver was never installed, or was removed",
    "ops provision --tags nvidia_driver --limit {host}",
)
NO_MODULE = Case(
    "driver-missing-for-kernel",
    CRITICAL,
    "kernel {kernel} runs without the NVIDIA module",
    "a kernel update came without modules for it: {why}",
    "ops provision --tags nvidia_driver --limit {host}   (by hand: {by_hand})",
)
NO_NEXT_MODULE = Case(
    "driver-missing-for-next-kernel",
    WARNING,
    "the next boot would have no GPUs",
    "kernel {kernel} boots next, and no NVIDIA module is installed for it",
    "ops provision --tags nvidia_driver --limit {host}   (before any reboot)",
)
NOT_LOADED = Case(
    "driver-not-loaded",
    CRITICAL,
    "the NVIDIA module {version} is installed and not loaded",
    "nothing has loaded it since it was installed, or it was unloaded",
    "modprobe nvidia   (refused? dmesg | tail, then ops restart host {host})",
)
MISMATCH = Case(
    "driver-library-mismatch",
    CRITICAL,
    "nvidia-smi and CUDA do not start: driver/library version mismatch",
    "the kernel still has module {loaded}, the libraries on disk are {library}: "
    "packages were upgraded and the host was not rebooted",
    "ops restart host {host}",
)
REBOOT_PENDING = Case(
    "driver-reboot-pending",
    WARNING,
    "another driver runs than is installed",
    "module {loaded} is loaded, {installed} is installed and comes with the next boot",
    "ops restart host {host}",
)
NOUVEAU = Case(
    "nouveau-holds-gpus",
    CRITICAL,
    "the NVIDIA module cannot have the GPUs",
    "the kernel's own driver nouveau holds them: its blacklist is missing from the initramfs",
    "ops provision --tags nvidia_driver --limit {host}   (writes it, rebuilds the initramfs, "
    "reboots)",
)
SECURE_BOOT = Case(
    "secure-boot-refuses-module", CRITICAL,
    "the NVIDIA module does not load under Secure Boot",
    "the firmware loads signed modules only, and trusts no key that signed this one (DKMS)",
    "set nvidia_driver_channel: archive (Ubuntu's signed modules), then ops provision --tags "
    "nvidia_driver --limit {host}; or mokutil --import /var/lib/dkms/mok.pub and reboot",
    (r"Loading of unsigned module is rejected", r"Key was rejected by service",
     r"Loading of module with unavailable key is rejected"),
)  # fmt: skip
OPEN_NEEDED = Case(
    "open-module-required",
    CRITICAL,
    "the loaded module does not take the GPUs",
    "these GPUs (Blackwell, Grace Hopper) work with the open kernel modules only",
    "set nvidia_driver_module: open, then ops provision --tags nvidia_driver --limit {host}",
    # Source: the NVIDIA module's own message, kernel-open/nvidia/nv-pci.c.
    (r"requires use of the NVIDIA open kernel modules",),
)
LEGACY = Case(
    "gpu-needs-other-branch", CRITICAL,
    "the loaded module does not take a GPU",
    "the GPU is older than this driver branch, or than the open modules (Volta and before)",
    "set nvidia_driver_branch to one that supports it (580 is the last for Volta) and "
    "nvidia_driver_module: proprietary, then ops driver upgrade --to BRANCH --limit {host}",
    # Source: the NVIDIA module's own messages, kernel-open/nvidia/nv-pci.c.
    (r"is supported through the NVIDIA [\w.]+ Legacy drivers",
     r"NVRM: .*not supported by (?:the )?open (?:kernel module|nvidia\.ko)"),
)  # fmt: skip
INIT_FAILED = Case(
    "gpu-init-failed",
    CRITICAL,
    "the driver cannot start a GPU",
    "{why}",
    "ops restart host {host}; if it stays: power the machine off and on, then reseat or replace "
    "the GPU",
    (r"RmInitAdapter failed", r"rm_init_adapter failed"),
)
NO_SMI = Case(
    "nvidia-smi-missing",
    CRITICAL,
    "the driver {loaded} runs and nvidia-smi is missing",
    "the userspace half of the driver is not installed",
    "ops provision --tags nvidia_driver --limit {host}",
)
NO_NODES = Case(
    "device-nodes-missing",
    CRITICAL,
    "programs cannot open the GPUs: {missing} not in /dev",
    "the module is loaded and nobody made its device nodes",
    "nvidia-modprobe -c 0 -u   (in a container: start it with the GPUs, --gpus all or --device "
    "nvidia.com/gpu=all)",
)
HANGS = Case(
    "driver-hangs",
    CRITICAL,
    "nvidia-smi does not answer",
    "the driver is wedged: a GPU hangs and holds its lock",
    "ops restart host {host}   (it does not come down? power it off and on)",
)
SMI_FAILS = Case(
    "driver-not-answering",
    CRITICAL,
    "nvidia-smi fails",
    "{why}",
    "ops restart host {host}; if it stays: ops provision --tags nvidia_driver --limit {host}",
)
FABRIC = Case(
    "fabric-manager-not-running",
    CRITICAL,
    "CUDA does not start on a machine with NVSwitch (error 802: system not yet initialized)",
    "{why}",
    "systemctl restart nvidia-fabricmanager; it does not stay up? ops provision --tags "
    "nvidia_driver --limit {host}",
)
CUDA_MISMATCH = Case(
    "cuda-library-mismatch",
    CRITICAL,
    "CUDA does not start (error 803: unsupported driver/CUDA driver combination)",
    "libcuda {library} is not of the loaded module {loaded}; or a compat libcuda is in its way",
    "ops restart host {host}; if it stays: remove cuda-compat-* and look at LD_LIBRARY_PATH",
)
CUDA_FAILS = Case(
    "cuda-does-not-start",
    CRITICAL,
    "nvidia-smi answers and CUDA does not start: {error}",
    "{why}",
    "modprobe nvidia-uvm && nvidia-modprobe -c 0 -u; if it stays: ops restart host {host}",
)
NO_PERSISTENCE = Case(
    "persistence-off",
    INFO,
    "persistence mode is off",
    "the driver lets go of idle GPUs: starts take seconds longer, and ECC counts are lost",
    "ops provision --tags nvidia_driver --limit {host}",
)
NO_CDI = Case(
    "container-toolkit-missing", INFO,
    "{runtimes} cannot give GPUs to containers",
    "{why}",
    "set container_toolkit_runtime: {first}, then ops provision --tags container_toolkit "
    "--limit {host}",
    (r'could not select device driver "" with capabilities: \[\[gpu\]\]',
     r"unresolvable CDI devices nvidia\.com/gpu"),
)  # fmt: skip
CASES = (
    NOT_INSTALLED, NO_MODULE, NO_NEXT_MODULE, NOT_LOADED, MISMATCH, REBOOT_PENDING, NOUVEAU,
    SECURE_BOOT, OPEN_NEEDED, LEGACY, INIT_FAILED, NO_SMI, NO_NODES, HANGS, SMI_FAILS, FABRIC,
    CUDA_MISMATCH, CUDA_FAILS, NO_PERSISTENCE, NO_CDI,
)  # fmt: skip
FABRIC_UNIT = "nvidia-fabricmanager.service"
NOT_READY, BAD_COMBINATION, NO_DEVICE = 802, 803, 100


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what ails the driver: first whether it is there, then whether it answers."""
    gpu = evidence.get("gpu") or {}
    if not (gpu.get("devices") or gpu.get("loaded") or gpu.get("nodes")):
        return
    log = evidence.get("machine", {}).get("kernel_log", [])
    if not gpu.get("loaded"):
        yield _absent(host, gpu, log)
        return
    yield from _refused(host, log)
    yield from _boots_next(host, gpu)
    sick = _answers(host, gpu)
    if sick is not None:
        yield sick
        return
    loaded, installed = gpu["loaded"]["version"], (gpu.get("installed") or {}).get("version", "")
    if installed and installed != loaded:
        line = f"loaded {loaded}, modinfo {installed}"
        yield REBOOT_PENDING.found(host, SUBJECT, line, loaded=loaded, installed=installed)
    units = {unit["unit"]: unit for unit in evidence.get("units", [])}
    yield from _cuda(host, gpu, units.get(FABRIC_UNIT))
    yield from _settings(host, gpu)


def _matching(case: Case, log: list[str]) -> list[str]:
    """The newest lines of the kernel log that tell a case."""
    return [dated(line) for line in log if any(re.search(p, line) for p in case.patterns)][-3:]


def _absent(host: str, gpu: Mapping[str, Any], log: list[str]) -> Finding:
    """Why no module is loaded."""
    count, kernel, installed = len(gpu["devices"]), gpu["kernel"], gpu.get("installed")
    if gpu["nouveau"]:
        return NOUVEAU.found(host, SUBJECT, "/sys/module/nouveau", f"kernel {kernel}")
    for case in (OPEN_NEEDED, LEGACY):
        if lines := _matching(case, log):
            return case.found(host, SUBJECT, *lines)
    refused = _matching(SECURE_BOOT, log)
    if gpu["secure_boot"] and (refused or installed):
        return SECURE_BOOT.found(host, SUBJECT, "Secure Boot is on", *refused)
    if installed:
        version = installed["version"]
        return NOT_LOADED.found(
            host, SUBJECT, f"modinfo nvidia: {version} for kernel {kernel}", *map(dated, log[-3:]),
            version=version,
        )  # fmt: skip
    smi, libraries = gpu.get("smi") or {}, gpu["libraries"].get("libnvidia-ml.so") or []
    if not libraries and smi.get("status", MISSING) == MISSING and not gpu["dkms"]:
        return NOT_INSTALLED.found(host, SUBJECT, f"PCI: {', '.join(gpu['devices'])}", count=count)
    why, by_hand = "its packages for this kernel are not installed", "apt install linux-modules-…"
    if gpu["dkms"]:
        by_hand = f"apt install linux-headers-{kernel} && dkms autoinstall && modprobe nvidia"
        why = "DKMS has not built them" if gpu["headers"] else "DKMS lacks this kernel's headers"
    return NO_MODULE.found(
        host, SUBJECT, f"modinfo -k {kernel} nvidia: not found", f"libraries: {libraries}",
        gpu["dkms"], kernel=kernel, why=why, by_hand=by_hand,
    )  # fmt: skip


def _refused(host: str, log: list[str]) -> Iterator[Finding]:
    """What the module said of GPUs that it does not take or cannot start."""
    for case in (OPEN_NEEDED, LEGACY):
        if lines := _matching(case, log):
            yield case.found(host, SUBJECT, *lines)
    if lines := _matching(INIT_FAILED, log):
        why = "the GPU, its firmware (GSP) or its slot does not come up"
        yield INIT_FAILED.found(host, SUBJECT, *lines, why=why)


def _boots_next(host: str, gpu: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the kernel that boots next has a module; a container has no kernels to look at."""
    following = gpu.get("installed_next")
    if gpu.get("installed") and not following:
        line = f"modinfo -k {gpu['next_kernel']} nvidia: not found"
        yield NO_NEXT_MODULE.found(host, SUBJECT, line, kernel=gpu["next_kernel"])


def _answers(host: str, gpu: Mapping[str, Any]) -> Finding | None:
    """Why nvidia-smi does not answer; None where it does."""
    smi, loaded = gpu.get("smi") or {}, gpu["loaded"]["version"]
    output = str(smi.get("output", ""))
    said = [line for line in output.splitlines() if line.strip()][:2]
    if smi.get("status") == TIMED_OUT:
        return HANGS.found(host, SUBJECT, "nvidia-smi: no answer within its deadline")
    library = ", ".join(gpu["libraries"].get("libnvidia-ml.so") or []) or "none"
    if "library version mismatch" in output:
        return MISMATCH.found(host, SUBJECT, *said, loaded=loaded, library=library)
    if smi.get("status") == MISSING:
        return NO_SMI.found(host, SUBJECT, f"/proc/driver/nvidia/version: {loaded}", loaded=loaded)
    if not gpu.get("gpus") and not gpu.get("lost"):
        nodes = _missing_nodes(gpu)
        if nodes:
            return NO_NODES.found(host, SUBJECT, *said, missing=", ".join(nodes))
        if "No devices were found" in output:
            why = "no GPU came up, or all are lost: the kernel log (dmesg | grep NVRM) says why"
        else:
            why = "the driver refuses: " + (said[0] if said else "it says nothing")
        return SMI_FAILS.found(host, SUBJECT, *said, why=why)
    return None


def _missing_nodes(gpu: Mapping[str, Any]) -> list[str]:
    return [name for name in ("nvidiactl", "nvidia0") if name not in gpu["nodes"]]


def _cuda(host: str, gpu: Mapping[str, Any], fabric: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Whether CUDA opens, and the Fabric Manager runs where it is needed."""
    cuda = gpu.get("cuda") or {}
    code = cuda.get("code", 0)
    line = f"cuInit: {code} {cuda.get('error', '')}"
    state = (fabric or {}).get("active", "not installed")
    if gpu["nvswitch"] and (state != "active" or code == NOT_READY):
        log = (fabric or {}).get("log", [])[-3:]
        why = f"{FABRIC_UNIT} is {state}; it must run, in exactly the driver's version"
        yield FABRIC.found(host, FABRIC_UNIT, line, *log, why=why)
    elif code == NOT_READY:
        why = "the GPUs' fabric is not up: Fabric Manager is missing here or on the machine below"
        yield FABRIC.found(host, FABRIC_UNIT, line, why=why)
    elif code == BAD_COMBINATION:
        library = ", ".join(gpu["libraries"].get("libcuda.so") or []) or "not found"
        yield CUDA_MISMATCH.found(
            host, SUBJECT, line, library=library, loaded=gpu["loaded"]["version"]
        )
    elif code and not (code == NO_DEVICE and not gpu.get("gpus")):
        lost = "" if "nvidia-uvm" in gpu["nodes"] else "/dev/nvidia-uvm is missing: no module"
        yield CUDA_FAILS.found(
            host, SUBJECT, line, f"device nodes: {', '.join(gpu['nodes'])}",
            error=cuda.get("error", ""), why=lost or "its library does not get the devices",
        )  # fmt: skip


def _settings(host: str, gpu: Mapping[str, Any]) -> Iterator[Finding]:
    """What works and could be better."""
    idle = [g["index"] for g in gpu["gpus"] if g.get("persistence_mode") == "Disabled"]
    if idle:
        yield NO_PERSISTENCE.found(host, SUBJECT, f"GPUs {', '.join(idle)}: Disabled")
    container = gpu.get("container") or {}
    runtimes = container.get("runtimes") or []
    if runtimes and not (container["cdi"] or container["docker_runtime"]):
        why = "the container toolkit is not installed"
        if container["toolkit"]:
            why = "the toolkit is installed, and neither a CDI description nor a runtime is set up"
        yield NO_CDI.found(
            host, "containers", f"no /etc/cdi/nvidia.yaml; runtimes: {', '.join(runtimes)}",
            runtimes=" and ".join(runtimes), first=runtimes[0], why=why,
        )  # fmt: skip
