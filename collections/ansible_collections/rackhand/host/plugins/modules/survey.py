#!/usr/bin/python
# Copyright: the Rackhand founders
"""What a host is and has, as preflight needs to know it; changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: survey
short_description: What a host is and has, as preflight needs to know it
description: Reads C(/proc), C(/sys) and the resolver in one call; the action plugin C(preflight) judges it.
options:
  disks: {type: list, elements: str, default: [], description: Paths whose file system is measured.}
  configs: {type: list, elements: path, default: [], description: Models' config.json files to read.}
  names: {type: list, elements: str, default: [], description: DNS names to resolve.}
attributes:
  check_mode: {support: full}
author: [The Rackhand founders]
"""

RETURN = r"""
survey:
  description: The findings; sizes in bytes, time in seconds since the epoch.
  returned: always
  type: dict
"""

import glob
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils import gpu_hardware
from ansible_collections.rackhand.host.plugins.module_utils.gpu_hardware import read

LISTEN = "0A"  # TCP state in /proc/net/tcp
OPERATIONS = "/var/lib/rackhand/operations"  # what `ops` has under way; on the keeper only


def open_operation(folder: str) -> dict[str, Any]:
    """The operation that is not finished; a power loss may leave the note of one that is."""
    found: dict[str, Any] = json.loads(read(f"{folder}/open.json") or "{}")
    journal = read(f"{folder}/{found['id']}/journal.jsonl").splitlines() if found else []
    try:
        ended = bool(journal) and json.loads(journal[-1])["event"] == "end"
    except ValueError:  # a line that was cut short
        ended = False
    return {} if ended else found


def os_release() -> dict[str, str]:
    """The fields of /etc/os-release."""
    pairs = re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', read("/etc/os-release"), re.M)
    return dict(pairs)


def memory_bytes() -> int:
    """Installed memory."""
    found = re.search(r"MemTotal:\s+(\d+) kB", read("/proc/meminfo"))
    return int(found.group(1)) * 1024 if found else 0


def disk(path: str) -> dict[str, Any]:
    """Size and free space of the file system that a path is, or will be, on."""
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    usage = shutil.disk_usage(existing)
    return {"path": path, "total": usage.total, "free": usage.free}


def listening() -> dict[str, str]:
    """Socket inode to port of every TCP listener."""
    found = {}
    for line in (read("/proc/net/tcp") + read("/proc/net/tcp6")).splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            found[fields[9]] = str(int(fields[1].rsplit(":", 1)[1], 16))
    return found


def listeners() -> dict[str, str]:
    """Port to the systemd unit (or process name) that listens on it."""
    inodes, found = listening(), {}
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        port = inodes.get(target[8:-1]) if target.startswith("socket:[") else None
        if port and port not in found:
            found[port] = owner(link.split("/")[2])
    return {port: found.get(port, "unknown") for port in inodes.values()}


def owner(pid: str) -> str:
    """The unit a process belongs to, else its name."""
    units = re.findall(r"/([^/\n]+\.service)", read(f"/proc/{pid}/cgroup"))
    return units[-1] if units else read(f"/proc/{pid}/comm").strip()


def resolve(name: str) -> list[str]:
    """Addresses of a name, empty when it has none."""
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def answer(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def kernel_headers(kernel: str) -> str:
    """Whether DKMS finds a kernel's headers: `present`, `offered` by a repository, or `missing`.

    A host that has yet to read the lists of a source gets the benefit of the doubt.
    """
    if os.path.isdir(f"/lib/modules/{kernel}/build"):
        return "present"
    if answer("apt-cache", "madison", f"linux-headers-{kernel}").strip():
        return "offered"
    uris = answer("apt-get", "update", "--print-uris").splitlines()
    heads = [line.split()[1] for line in uris if "InRelease'" in line]
    known = [glob.glob(f"/var/lib/apt/lists/{h.removesuffix('InRelease')}*Release") for h in heads]
    return "missing" if known and all(known) else "offered"


def gpu_layer() -> dict[str, Any]:
    """What decides about a driver."""
    kernels = gpu_hardware.bootable_kernels() or [platform.release()]
    loaded = gpu_hardware.loaded_driver()
    devices = gpu_hardware.gpus()
    return {
        "devices": devices,
        "architectures": [gpu_hardware.architecture_of(device) for device in devices],
        "memory_mib": gpu_hardware.memory_mib() if devices else [],
        "nvswitch": gpu_hardware.has_nvswitch(),
        "secure_boot": gpu_hardware.secure_boot(),
        "key_enrolled": gpu_hardware.dkms_key_is_enrolled(),
        "kernels": kernels,
        "headers": kernel_headers(kernels[-1]) if devices else "present",
        "loaded": loaded.version if loaded else "",
        "nouveau": gpu_hardware.nouveau_is_loaded(),
    }


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "disks": {"type": "list", "elements": "str", "default": []},
            "configs": {"type": "list", "elements": "path", "default": []},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    survey = {
        "os": os_release(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "memory": memory_bytes(),
        "cpus": os.cpu_count(),
        "disks": [disk(path) for path in module.params["disks"]],
        "listeners": listeners(),
        "names": {name: resolve(name) for name in module.params["names"]},
        "time": time.time(),
        "configs": {path: read(path) for path in module.params["configs"]},
        "operation": open_operation(OPERATIONS),
        **gpu_layer(),
    }
    module.exit_json(changed=False, survey=survey)


if __name__ == "__main__":
    main()
