"""Kernel modules of the simulator: true ELF objects with a true `.modinfo`, and nothing to run.

`modinfo`, `depmod` and `modprobe` read them as they read any module. Standard library only: the
mirror's DKMS carries this file to the hosts and runs it as its compiler.
"""

from __future__ import annotations

import struct
import sys

SIGNER = b"Canonical Ltd. Kernel Module Signing (simulated)"
SIGNED = b"~Module signature appended~\n"  # Linux, include/linux/module_signature.h
HEADER_SIZE, SECTION_SIZE = 64, 64
NVIDIA_ALIAS = "pci:v000010DEd*sv*sd*bc03sc*i00*"


def nvidia_module(kernel: str, version: str, licence: str, *, signed: bool = False) -> bytes:
    """NVIDIA's module.

    Args:
        kernel: Release it is built for.
        version: The driver's version.
        licence: `Dual MIT/GPL` (open) or `NVIDIA` (proprietary).
        signed: Whether a distribution signed it.
    """
    fields = {"license": licence, "version": version, "alias": NVIDIA_ALIAS, "depends": ""}
    return _module("nvidia", kernel, fields, signed=signed)


def nouveau_module(kernel: str) -> bytes:
    """The kernel's own driver for NVIDIA's GPUs, signed with the kernel."""
    fields = {"license": "GPL and additional rights", "description": "nVidia Riva/TNT/GeForce"}
    fields |= {"author": "Nouveau Project", "alias": NVIDIA_ALIAS, "depends": ""}
    return _module("nouveau", kernel, fields, signed=True)


def _module(name: str, kernel: str, fields: dict[str, str], *, signed: bool) -> bytes:
    magic = f"{kernel} SMP preempt mod_unload modversions "
    described = fields | {"name": name, "vermagic": magic}
    text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in described.items())
    content = _elf({".modinfo": text})
    return content + (_signature() if signed else b"")


def _elf(sections: dict[str, bytes]) -> bytes:
    """A relocatable object of x86-64 with these sections (ELF-64 Object File Format 1.5)."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    body, headers = b"", bytes(SECTION_SIZE)
    for kind, name, data in [
        *((1, name, data) for name, data in sections.items()),  # SHT_PROGBITS
        (3, ".shstrtab", names),  # SHT_STRTAB
    ]:
        place = HEADER_SIZE + len(body)
        name_at = names.index(b"\0" + name.encode() + b"\0") + 1
        flags = 2 if kind == 1 else 0  # SHF_ALLOC
        headers += struct.pack("<IIQQQQIIQQ", name_at, kind, flags, 0, place, len(data), 0, 0, 1, 0)
        body += data + bytes(-len(data) % 8)
    count = len(sections) + 2
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(identity, 1, 62, 1, 0, 0, HEADER_SIZE + len(body), 0),  # ET_REL, EM_X86_64
        *(HEADER_SIZE, 0, 0, SECTION_SIZE, count, count - 1),
    )
    return header + body + headers


def _signature() -> bytes:
    """What follows a signed module; the loader of the simulator looks for its last line."""
    key, signature = bytes(20), b"simulated signature"
    described = struct.pack(">BBBBB3xI", 1, 4, 1, len(SIGNER), len(key), len(signature))
    return SIGNER + key + signature + described + SIGNED


if __name__ == "__main__":
    sys.stdout.buffer.write(nvidia_module(*sys.argv[1:4]))
