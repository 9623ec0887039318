"""The simulator's kernel modules are ELF objects whose .modinfo tells what modinfo prints."""

from __future__ import annotations

import struct
import subprocess
import sys

from ops.lab.mirror import module_file
from ops.lab.mirror.module_file import SIGNED, nouveau_module, nvidia_module


def modinfo(data: bytes) -> dict[str, str]:
    """Read .modinfo by the section headers, as kmod does."""
    assert data[:4] == b"\x7fELF"
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, names_at = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQ", data, start + size * n) for n in range(count)]
    strings = headers[names_at][4]
    for name, _, _, _, offset, length in headers[1:]:
        if data[strings + name :].startswith(b".modinfo\0"):
            lines = data[offset : offset + length].decode().rstrip("\0").split("\0")
            return dict(line.split("=", 1) for line in lines)
    raise AssertionError("no .modinfo")


def test_a_module_tells_version_licence_and_kernel() -> None:
    found = modinfo(nvidia_module("6.8.0-90-generic", "580.178.04", "NVIDIA"))
    assert found["version"] == "580.178.04"
    assert found["license"] == "NVIDIA"
    assert found["vermagic"].split()[0] == "6.8.0-90-generic"
    assert found["alias"].startswith("pci:v000010DEd")
    assert modinfo(nouveau_module("6.8.0-90-generic"))["name"] == "nouveau"


def test_only_a_signed_module_ends_with_the_kernels_mark() -> None:
    signed = nvidia_module("6.8.0-90-generic", "580.178.04", "Dual MIT/GPL", signed=True)
    unsigned = nvidia_module("6.8.0-90-generic", "580.178.04", "Dual MIT/GPL")
    assert signed.endswith(SIGNED)
    assert signed.startswith(unsigned)
    assert SIGNED not in unsigned


def test_as_a_program_it_writes_what_dkms_asks_for() -> None:
    words = ["6.12.0-990-amd64", "595.91.07", "NVIDIA"]
    command = [sys.executable, module_file.__file__, *words]
    assert subprocess.run(command, capture_output=True, check=True).stdout == nvidia_module(*words)
