"""Load and unload kernel modules of a simulated machine, and refuse what hardware would."""

from __future__ import annotations

import os
import platform
import re
import stat
import subprocess
import sys
from pathlib import Path

import hardware  # type: ignore[import-not-found]  # it lies beside this program on the host

SIGNED = b"~Module signature appended~\n"  # Linux, include/linux/module_signature.h
OPEN = "Dual MIT/GPL"
BEFORE_OPEN = {"kepler", "maxwell", "pascal", "volta"}  # open modules need a GSP: Turing on
OPEN_ONLY = {"blackwell"}
PERSISTENCED = Path("/run/nvidia-persistenced/nvidia-persistenced.pid")
VERSION = hardware.PROC_DRIVER / "nvidia/version"
NULL_DEVICE = os.makedev(1, 3)


class Refused(Exception):
    """The kernel would not do it.

    Args:
        words: What modprobe prints.
        logged: What the kernel logs.
    """

    def __init__(self, words: str, logged: str = "") -> None:
        super().__init__(words)
        self.logged = logged


def main(action: str, module: str) -> int:
    """Load or unload a module."""
    try:
        {"load": load, "unload": unload}[action](module)
    except Refused as refused:
        if refused.logged:
            hardware.log(refused.logged)
            print(refused.logged, file=sys.stderr)
        print(refused, file=sys.stderr)
        return 1
    return 0


def load(module: str) -> None:
    """Load a module that is installed for the running kernel, unless it is loaded."""
    loaded = hardware.loaded_modules()
    if module in loaded:
        return
    fields = describe(module)
    if fields["vermagic"].split()[0] != platform.release():
        raise Refused(f"modprobe: ERROR: could not insert '{module}': Exec format error")
    machine = hardware.read_machine()
    if machine.secure_boot and not Path(fields["filename"]).read_bytes().endswith(SIGNED):
        raise Refused(
            f"modprobe: ERROR: could not insert '{module}': Key was rejected by service",
            f"Loading of unsigned module is rejected: {module}",
        )
    if module == "nvidia":
        check_gpus(machine, fields["license"] == OPEN, loaded)
        show_driver(machine, fields["version"], fields["license"] == OPEN)
    hardware.add_module(module, fields.get("version", ""))


def describe(module: str) -> dict[str, str]:
    """What modinfo says of a module of the running kernel."""
    release = platform.release()
    done = subprocess.run(
        ["modinfo", "-k", release, module], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Refused(
            f"modprobe: FATAL: Module {module} not found in directory /lib/modules/{release}"
        )
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def check_gpus(machine: hardware.Machine, is_open: bool, loaded: list[str]) -> None:
    """Refuse a module that no GPU of this machine would answer to."""
    nothing = "modprobe: ERROR: could not insert 'nvidia': No such device"
    if "nouveau" in loaded:
        raise Refused(
            nothing,
            f"NVRM: The NVIDIA probe routine was not called for {len(machine.gpus)} device(s). "
            "NVRM: Try unloading the conflicting kernel module (nouveau).",
        )
    architectures = {gpu.architecture for gpu in machine.gpus}
    if not architectures:
        raise Refused(nothing, "NVRM: No NVIDIA GPU found.")
    if is_open and architectures <= BEFORE_OPEN:
        raise Refused(nothing, "NVRM: The NVIDIA GPU is not supported by open nvidia.ko.")
    if not is_open and architectures & OPEN_ONLY:
        raise Refused(
            nothing,
            "NVRM: The NVIDIA GPU requires use of the NVIDIA open kernel modules.",
        )


def show_driver(machine: hardware.Machine, version: str, is_open: bool) -> None:
    """Fill /proc/driver/nvidia and make the devices, as the module does."""
    kind = "Open Kernel Module for x86_64" if is_open else "x86_64 Kernel Module"
    for gpu in machine.gpus:
        folder = VERSION.parent / "gpus" / gpu.pci
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "information").write_text(
            f"Model: \t\t {gpu.name}\n"
            f"GPU UUID: \t {gpu.uuid}\n"
            "Bus Type: \t PCIe\n"
            f"Bus Location: \t {gpu.pci}\n"
            f"Device Minor: \t {gpu.index}\n"
            f"GPU Firmware: \t {version}\n"
            "GPU Excluded:\t No\n"
        )
        make_device(Path(f"/dev/nvidia{gpu.index}"))
    for name in ("nvidiactl", "nvidia-uvm"):
        make_device(Path("/dev", name))
    if machine.nvswitch:
        switch = hardware.PROC_DRIVER / "nvidia-nvswitch/devices/0000:c1:00.0"
        switch.parent.mkdir(parents=True, exist_ok=True)
        switch.write_text("simulated NVSwitch\n")
    VERSION.write_text(
        f"NVRM version: NVIDIA UNIX {kind}  {version}  Release Build  (rackhand lab simulator)\n"
        "GCC version:  none\n"
    )


def make_device(path: Path) -> None:
    """Make a device that takes everything and gives nothing: the library reads files instead."""
    if not path.exists():
        os.mknod(path, stat.S_IFCHR | 0o666, NULL_DEVICE)
        path.chmod(0o666)


def unload(module: str) -> None:
    """Unload a module unless something uses it."""
    loaded = hardware.loaded_modules()
    if module not in loaded:
        raise Refused(f"modprobe: FATAL: Module {module} is not currently loaded")
    if module == "nvidia":
        held = any(gpu.held for gpu in hardware.read_machine().gpus)
        if held or is_alive(PERSISTENCED):
            raise Refused("modprobe: FATAL: Module nvidia is in use.")
        subprocess.run(["rm", "-rf", VERSION.parent, *Path("/dev").glob("nvidia*")], check=True)
        subprocess.run(["rm", "-rf", hardware.PROC_DRIVER / "nvidia-nvswitch"], check=True)
    hardware.remove_module(module)


def is_alive(pid_file: Path) -> bool:
    """Whether the daemon that wrote a file still runs."""
    found = re.fullmatch(r"(\d+)\s*", pid_file.read_text()) if pid_file.exists() else None
    return found is not None and Path("/proc", found[1]).exists()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
