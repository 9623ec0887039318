"""Boot a simulated machine: choose its kernel, show its hardware, load its drivers."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import hardware  # type: ignore[import-not-found]  # it lies beside this program on the host

BOOT = Path("/boot")
PCI = Path("/sys/bus/pci/devices")
FIRMWARE = Path("/sys/firmware")
SECURE_BOOT = "efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
OS_RELEASE = Path("/proc/sys/kernel/osrelease")
NVIDIA = 0x10DE
DISPLAY_3D, BRIDGE_OTHER = 0x030200, 0x068000  # PCI classes
NVSWITCH = 0x22A3  # device ID of the H100 generation's
NVSWITCH_ADDRESS = "0000:c1:00.0"
ENDED_BY_A_BOOT = {
    "state": "ok",
    "persistence_mode": "no",
    "processes": "",
    "memory_used_mib": "0",
    "clocks_event_reasons": "0x1",  # idle
    "ecc_corrected": "0",
    "ecc_uncorrected": "0",
    "ecc_uncorrected_sram": "0",
    "recovery_action": "0",
    "nvlink_down": "0x0",
}
NO_NOUVEAU = re.compile(
    r"^\s*(blacklist\s+nouveau|install\s+nouveau\s+(/usr)?/bin/(true|false))\b", re.MULTILINE
)


def main() -> None:
    """Do what firmware, boot loader and kernel do before the first service starts."""
    machine = hardware.read_machine()
    shutil.rmtree(hardware.STATE, ignore_errors=True)
    hardware.STATE.mkdir()
    release = newest_kernel()
    hardware.RELEASE.write_text(release + "\n")
    cover_folders(hardware.PROC_DRIVER, PCI, hardware.MODULES, FIRMWARE)
    hardware.list_modules()
    bind(hardware.RELEASE, OS_RELEASE)
    bind(hardware.MODULE_LIST, Path("/proc/modules"))
    show_hardware(machine)
    forget_what_a_reboot_ends()
    if machine.gpus and not nouveau_is_off(release):
        subprocess.run(["modprobe", "nouveau"], check=False)
    if machine.gpus:
        subprocess.run(["modprobe", "nvidia"], check=False)


def newest_kernel() -> str:
    """The kernel a boot loader starts: the newest one by its numbers."""
    releases = [path.name.partition("-")[2] for path in BOOT.glob("vmlinuz-*")]
    if not releases:
        sys.exit("no kernel is installed: /boot has no vmlinuz-*")
    return max(releases, key=lambda text: [int(n) for n in re.findall(r"\d+", text)])


def show_hardware(machine: hardware.Machine) -> None:
    """Fill the PCI bus, the EFI variables and the driver-less part of /proc/driver."""
    for gpu in machine.gpus:
        show_device(gpu.pci, gpu.device_id, DISPLAY_3D)
    if machine.nvswitch:
        show_device(NVSWITCH_ADDRESS, NVSWITCH, BRIDGE_OTHER)
    if machine.secure_boot:
        variable = FIRMWARE / SECURE_BOOT
        variable.parent.mkdir(parents=True)
        variable.write_bytes(b"\x06\0\0\0\x01")  # attributes, then the value


def show_device(address: str, device: int, kind: int) -> None:
    """Show one PCI device."""
    folder = PCI / address
    folder.mkdir()
    header = struct.pack("<HHHHBBHBBBB", NVIDIA, device, 0x6, 0x10, 0xA1, 0, kind >> 8, 0, 0, 0, 0)
    (folder / "config").write_bytes(header.ljust(64, b"\0"))
    texts = {"vendor": f"{NVIDIA:#06x}", "device": f"{device:#06x}", "class": f"{kind:#08x}"}
    texts |= {"subsystem_vendor": f"{NVIDIA:#06x}", "subsystem_device": "0x0000"}
    texts |= {"revision": "0xa1", "irq": "0", "numa_node": "0", "resource": ""}
    texts["modalias"] = (
        f"pci:v{NVIDIA:08X}d{device:08X}sv{NVIDIA:08X}sd00000000"
        f"bc{kind >> 16:02x}sc{kind >> 8 & 255:02x}i{kind & 255:02x}"
    )
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")


def nouveau_is_off(release: str) -> bool:
    """Whether the initramfs of a kernel keeps nouveau from loading; only what is in it counts."""
    image = BOOT / f"initrd.img-{release}"
    if not image.exists():
        return False
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        subprocess.run(["unmkinitramfs", image, folder], check=True, capture_output=True)
        files = Path(folder).glob("**/modprobe.d/*.conf")
        return any(NO_NOUVEAU.search(path.read_text()) for path in files)


def forget_what_a_reboot_ends() -> None:
    """What a GPU keeps in volatile state does not outlive a boot."""
    text = hardware.DESCRIPTION.read_text()
    for key, value in ENDED_BY_A_BOOT.items():
        # What a product does not have stays n/a.
        text = re.sub(rf"(?m)^{key}\s*=(?!\s*n/a).*$", f"{key} = {value}".rstrip(), text)
    # A changed MIG mode that still waits takes effect.
    text = re.sub(
        r"(?m)^mig_mode\s*=.*\n(mig_mode_pending\s*=\s*(\S+))", r"mig_mode = \2\n\1", text
    )
    new = hardware.DESCRIPTION.with_suffix(".new")
    new.write_text(text)
    new.replace(hardware.DESCRIPTION)


def cover_folders(*folders: Path) -> None:
    """Mount empty folders over the kernel's; a container's /sys may lack one, and is read-only."""
    missing = [folder for folder in folders if not folder.exists()]
    if missing:
        mount("-o", "remount,rw", "/sys")
        for folder in missing:
            folder.mkdir(parents=True)
        mount("-o", "remount,ro", "/sys")
    for folder in folders:
        mount("-t", "tmpfs", "-o", "mode=755", "none", str(folder))


def bind(ours: Path, theirs: Path) -> None:
    """Show a file in the place of one of the kernel's, where the kernel has it."""
    if theirs.exists():
        mount("--bind", str(ours), str(theirs))


def mount(*words: str) -> None:
    """Mount something."""
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    main()
