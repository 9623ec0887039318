# Copyright: the Rackhand founders
"""What the kernel shows of NVIDIA hardware and drivers, whatever packages say (docs/gpu.md).

Runs on the host's own Python, with the standard library alone.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from dataclasses import dataclass

NVIDIA = "0x10de"
#: First device ID of each architecture; an ID belongs to the last entry that is not above it.
#: Source: the PCI ID repository (pci-ids.ucw.cz, vendor 10de) and the table of compatible GPUs in
#: the README of NVIDIA/open-gpu-kernel-modules, which starts at 1E02. Grace Hopper's IDs (2342,
#: 2345, …) stand in Linux's drivers/vfio/pci/nvgrace-gpu.
ARCHITECTURES = (
    (0x0000, "older"),
    (0x1340, "maxwell"),
    (0x15F0, "pascal"),  # GP100
    (0x1617, "maxwell"),
    (0x1725, "pascal"),
    (0x17C2, "maxwell"),  # GM200
    (0x1B00, "pascal"),
    (0x1D81, "volta"),
    (0x1E02, "turing"),
    (0x2080, "ampere"),  # GA100
    (0x2180, "turing"),  # TU116, TU117
    (0x2200, "ampere"),
    (0x2300, "hopper"),
    (0x2340, "grace_hopper"),
    (0x2400, "ampere"),
    (0x2600, "ada"),
    (0x2900, "blackwell"),  # and what came after it: open modules only
)
BEFORE_OPEN_MODULES = frozenset({"older", "maxwell", "pascal", "volta"})
ONLY_OPEN_MODULES = frozenset({"grace_hopper", "blackwell"})

#: Memory in MiB by device ID, as nvidia-smi tells it, for the time before a driver can be asked.
#: Sources: public nvidia-smi listings of each card; the same card of two sizes has two IDs.
MEMORY_MIB = {
    "0x1db1": 16384, "0x1db4": 16384, "0x1db5": 32768, "0x1db6": 32768,  # V100
    "0x1eb8": 15360,  # T4
    "0x20b0": 40960, "0x20f1": 40960, "0x20b2": 81920, "0x20b5": 81920,  # A100
    "0x20b7": 24576, "0x2235": 46068, "0x2236": 23028, "0x2237": 23028,  # A30, A40, A10, A10G
    "0x27b8": 23034, "0x26b9": 46068, "0x26b1": 49140,  # L4, L40S, RTX 6000 Ada
    "0x2204": 24576, "0x2684": 24564, "0x2b85": 32607,  # RTX 3090, 4090, 5090
    "0x2bb5": 97887,  # RTX PRO 6000
    "0x2330": 81559, "0x2331": 81559, "0x2335": 143771,  # H100, H200
    "0x2901": 183359, "0x2941": 189471,  # B200, GB200
}  # fmt: skip

EFI_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True)
class LoadedModule:
    """A kernel module of NVIDIA's: `580.178.04`, and whether it is `open` or `proprietary`."""

    version: str
    flavour: str


def read(path: str) -> str:
    """A file's text, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def architecture_of(device_id: str) -> str:
    """The architecture of a PCI device ID such as `0x2330`."""
    number = int(device_id, 16)
    return [name for first, name in ARCHITECTURES if first <= number][-1]


def nvidia_devices(kind: str) -> list[str]:
    """Device IDs of NVIDIA's PCI devices whose class starts with `kind`, in the order of the bus."""
    found = []
    for folder in sorted(glob.glob("/sys/bus/pci/devices/*")):
        ours = read(f"{folder}/vendor").strip() == NVIDIA
        if ours and read(f"{folder}/class").startswith(kind):
            found.append(read(f"{folder}/device").strip())
    return found


def gpus() -> list[str]:
    """Device IDs of the GPUs on the bus: display and 3D controllers (class 03xx)."""
    return nvidia_devices("0x03")


def memory_mib() -> list[int]:
    """Memory of each GPU that CUDA can use: what the driver says, else what the device IDs tell.

    A GPU that neither knows is 0.
    """
    fields = "--query-gpu=memory.total,memory.reserved"
    command = ["timeout", "20", "nvidia-smi", fields, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        done = None
    rows = re.findall(r"^(\d+), (\d+)$", done.stdout, re.MULTILINE) if done else []
    if done and done.returncode == 0 and rows:
        return [int(total) - int(reserved) for total, reserved in rows]
    return [MEMORY_MIB.get(device, 0) for device in gpus()]


def has_nvswitch() -> bool:
    """Whether GPUs talk over NVSwitch, which wants the Fabric Manager."""
    shown = glob.glob("/proc/driver/nvidia-nvswitch/devices/*")
    return bool(shown) or bool(nvidia_devices("0x0680"))


def secure_boot() -> bool:
    """Whether the firmware enforces Secure Boot: the fifth byte of its EFI variable is 1."""
    try:
        with open(EFI_SECURE_BOOT, "rb") as stream:
            return stream.read()[4:5] == b"\x01"
    except OSError:
        return False


def dkms_key_is_enrolled() -> bool:
    """Whether the firmware trusts the key that DKMS signs with on this host."""
    command = ["mokutil", "--test-key", "/var/lib/dkms/mok.pub"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return "is already enrolled" in done.stdout


def loaded_driver() -> LoadedModule | None:
    """The NVIDIA module that runs now, from /proc/driver/nvidia/version."""
    text = read("/proc/driver/nvidia/version")
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    if not found:
        return None
    return LoadedModule(found[1], "open" if "Open Kernel Module" in found[0] else "proprietary")


def installed_module(kernel: str) -> LoadedModule | None:
    """The NVIDIA module that a kernel would load, as `modinfo` finds it."""
    command = ["modinfo", "-k", kernel, "nvidia"]
    environment = {**os.environ, "PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    fields = dict(re.findall(r"^(version|license):\s+(.+)$", done.stdout, re.MULTILINE))
    if done.returncode != 0 or "version" not in fields:
        return None
    flavour = "proprietary" if fields.get("license", "") == "NVIDIA" else "open"
    return LoadedModule(fields["version"], flavour)


def nouveau_is_loaded() -> bool:
    """Whether the kernel's own driver holds the GPUs."""
    return os.path.isdir("/sys/module/nouveau")


def kernel_order(release: str) -> list[int]:
    """A key that sorts kernel releases by age: 6.8.0-90-generic before 6.8.0-101-generic."""
    return [int(number) for number in re.findall(r"\d+", release)]


def bootable_kernels() -> list[str]:
    """Kernel releases in /boot, oldest first; the last one boots next."""
    names = [path.removeprefix("/boot/vmlinuz-") for path in glob.glob("/boot/vmlinuz-*")]
    return sorted((name for name in names if name[:1].isdigit()), key=kernel_order)
