"""What a simulated machine is made of, read from its description."""

from __future__ import annotations

import configparser
import datetime
from dataclasses import dataclass
from pathlib import Path

DESCRIPTION = Path("/etc/rackhand-simulator/gpus.conf")
STATE = Path("/run/rackhand-simulator")  # true until the next boot
RELEASE = STATE / "kernel-release"
MODULES = Path("/sys/module")  # a folder for each loaded module
MODULE_LIST = STATE / "modules"  # shown as /proc/modules where this kernel has one
KERNEL_LOG = STATE / "kernel.log"  # what `dmesg` would show
PROC_DRIVER = Path("/proc/driver")


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the PCI bus and the driver's /proc files show it."""

    index: int
    name: str
    uuid: str
    pci: str
    device_id: int
    architecture: str
    held: bool


@dataclass(frozen=True)
class Machine:
    """The GPUs of this machine, and what else of its hardware matters to a driver."""

    gpus: tuple[Gpu, ...]
    secure_boot: bool
    nvswitch: bool


def read_machine() -> Machine:
    """Read the description anew."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read(DESCRIPTION)
    machine = parser["machine"] if parser.has_section("machine") else {}
    gpus = []
    for section in (parser[name] for name in parser.sections() if name.startswith("gpu ")):
        gpus.append(
            Gpu(
                index=int(section.name.split()[1]),
                name=section["name"],
                uuid=section["uuid"],
                pci=section["pci"],
                device_id=int(section["device_id"], 16),
                architecture=section["architecture"],
                held=bool(section.get("processes", "").strip()),
            )
        )
    return Machine(
        tuple(gpus), machine.get("secure_boot") == "yes", machine.get("nvswitch") == "yes"
    )


def loaded_modules() -> list[str]:
    """Names of the simulated modules that are loaded."""
    return sorted(path.name for path in MODULES.iterdir())


def add_module(name: str, version: str) -> None:
    """Show a module as loaded.

    Args:
        name: Its name.
        version: Its version, or nothing where it tells none.
    """
    folder = MODULES / name
    folder.mkdir()
    for key, value in {"initstate": "live", "refcnt": "0", "version": version}.items():
        if value:
            (folder / key).write_text(value + "\n")
    list_modules()


def remove_module(name: str) -> None:
    """Show a module as loaded no more."""
    for path in (MODULES / name).iterdir():
        path.unlink()
    (MODULES / name).rmdir()
    list_modules()


def list_modules() -> None:
    """Write the list anew, in place, because it may be mounted over /proc/modules."""
    lines = [f"{name} 65536 0 - Live 0x0000000000000000\n" for name in loaded_modules()]
    MODULE_LIST.write_text("".join(lines))


def log(message: str) -> None:
    """Say what a kernel would have logged."""
    now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 - one spelling for all hosts
    with KERNEL_LOG.open("a") as file:
        file.write(f"{now:%Y-%m-%dT%H:%M:%SZ} {message}\n")
