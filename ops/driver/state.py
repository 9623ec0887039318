"""What each host's NVIDIA driver is right now, read from what its kernel shows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

from ops.engine.traffic import DRAINED
from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host
from ops.places import ROOT

#: The role's own reader of the hardware; it runs on the host's Python and needs nothing else.
HARDWARE = (
    ROOT / "collections/ansible_collections/rackhand/host/plugins/module_utils/gpu_hardware.py"
)
FACT = "/etc/ansible/facts.d/nvidia_driver.fact"
GPU_FIELDS = ("index", "name", "uuid", "driver_version", "memory.total")
TAIL = f"""
import json
running = os.uname().release
kernels = bootable_kernels() or [running]
smi = ["timeout", "30", "nvidia-smi", "--query-gpu={",".join(GPU_FIELDS)}",
       "--format=csv,noheader,nounits"]
try:
    asked = subprocess.run(smi, capture_output=True, text=True, check=False)
    lines = (asked.stdout + asked.stderr).splitlines()
    listed = [line.split(", ") for line in lines if line.count(", ") == {len(GPU_FIELDS) - 1}]
    others = [line for line in lines if line and line.count(", ") != {len(GPU_FIELDS) - 1}]
    complaint = (others + ["nvidia-smi did not answer"])[0] if asked.returncode else ""
except OSError:
    listed, complaint = [], "nvidia-smi is not installed"
loaded, installed = loaded_driver(), installed_module(running)
next_module = installed_module(kernels[-1])
print(json.dumps({{
    "devices": gpus(),
    "kernel": running,
    "next_kernel": kernels[-1],
    "loaded": loaded and vars(loaded),
    "installed": installed and vars(installed),
    "installed_next": next_module and vars(next_module),
    "nouveau": nouveau_is_loaded(),
    "secure_boot": secure_boot(),
    "nvswitch": has_nvswitch(),
    "listed": listed,
    "complaint": complaint,
    "record": json.loads(read("{FACT}") or "{{}}"),
    "drained": read("{DRAINED}").strip(),
}}))
"""
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver answers for."""

    index: int
    name: str
    uuid: str
    memory_mib: int


@dataclass(frozen=True)
class DriverState:
    """One host's driver. Versions are NVIDIA's, `580.178.04`; empty where there is none."""

    host: str
    devices: int = 0
    """GPUs on the PCI bus, with or without a driver."""
    gpus: tuple[Gpu, ...] = ()
    """GPUs that the driver answers for."""
    kernel: str = ""
    next_kernel: str = ""
    loaded: str = ""
    flavour: str = ""
    """`open` or `proprietary`, of the loaded module, else of the installed one."""
    installed: str = ""
    """Version of the module on disk for the running kernel."""
    installed_next: str = ""
    """The same for the kernel that boots next."""
    nouveau: bool = False
    secure_boot: bool = False
    nvswitch: bool = False
    channel: str = ""
    record: dict[str, Any] = field(default_factory=dict, repr=False)
    """The role's fact file: packages with exact versions, and what was before them."""
    complaint: str = ""
    """What nvidia-smi says is wrong."""
    drained: str = ""
    """Why the host is out of traffic."""
    problem: str = ""
    """Why nothing is known."""

    @property
    def findings(self) -> list[str]:
        """What is wrong, in words; empty on a host that is well."""
        if self.problem:
            return [self.problem]
        if not self.devices:
            return []
        found = []
        if self.nouveau:
            found.append("nouveau holds the GPUs: reboot")
        if not self.installed_next:
            found.append(f"kernel {self.next_kernel}, which boots next, has no driver")
        elif self.loaded and self.loaded != self.installed_next:
            found.append(f"{self.loaded} is loaded, {self.installed_next} is installed: reboot")
        if self.complaint and not self.nouveau:
            found.append(self.complaint)
        if self.loaded and len(self.gpus) < self.devices:
            found.append(f"{self.devices} GPUs on the bus, {len(self.gpus)} answer")
        return found


def survey(fleet: Fleet, hosts: tuple[Host, ...]) -> list[DriverState]:
    """Ask hosts at once; one that does not answer is a result, not an error."""
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        return list(pool.map(lambda host: ask(fleet, host), hosts))


def ask(fleet: Fleet, host: Host) -> DriverState:
    """Ask one host."""
    from ops.remote import connect, run

    script = HARDWARE.read_text(encoding="utf-8") + TAIL
    try:
        with connect(fleet, host) as connection:
            return read_state(host.name, run(connection, host, f"python3 -c {quote(script)}"))
    except RemoteError as error:
        return DriverState(host.name, problem=error.message)


def read_state(host: str, output: str) -> DriverState:
    """Turn what the script printed into a DriverState."""
    found: dict[str, Any] = json.loads(output)
    loaded, installed = found["loaded"] or {}, found["installed"] or {}
    record = found["record"]
    return DriverState(
        host=host,
        devices=len(found["devices"]),
        gpus=tuple(
            Gpu(int(index), name, uuid, int(float(memory)))
            for index, name, uuid, _version, memory in found["listed"]
        ),
        kernel=found["kernel"],
        next_kernel=found["next_kernel"],
        loaded=loaded.get("version", ""),
        flavour=loaded.get("flavour") or installed.get("flavour", ""),
        installed=installed.get("version", ""),
        installed_next=(found["installed_next"] or {}).get("version", ""),
        nouveau=found["nouveau"],
        secure_boot=found["secure_boot"],
        nvswitch=found["nvswitch"],
        channel=record.get("channel", ""),
        record=record,
        complaint=found["complaint"],
        drained=found["drained"],
    )
