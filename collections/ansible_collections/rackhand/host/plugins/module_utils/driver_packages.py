# Copyright: the Rackhand founders
"""Which packages are a driver, and whether what apt would do is what was asked for.

Pure: everything here works on words. Names and traps: docs/gpu.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: Ubuntu's packages in NVIDIA's repository carry the branch in their names up to this one.
LAST_SUFFIXED_BRANCH = 580
FIRST_CUDA_13_BRANCH = 580
#: Package lists of an inventory never hold these: each replaces more than its name says.
TRAPS = {
    "cuda": "drags a driver in; name a cuda-toolkit-X-Y (role cuda)",
    "datacenter-gpu-manager": "replaces DCGM 4 by version 3; set nvidia_driver_dcgm instead",
}
TRAP_PATTERN = re.compile(r"cuda-\d+(-\d+)?$")

DRIVER_NAME = re.compile(
    r"(lib)?nvidia-(?!container)(?!cdi)|linux-(modules|objects|signatures)-nvidia-"
    r"|cuda-drivers|libcuda1$|libnvsdm|nvlsm$|xserver-xorg-video-nvidia|libxnvctrl"
)
#: Named like the driver's and on their own versions.
BESIDE_DRIVER = re.compile(
    r"nvidia-(container|ctk|docker|cuda-|settings|prime|fs|gds|driver-pinning|modprobe)"
    r"|libnvidia-(container|egl)"
)
#: Packages whose names tell open modules from proprietary ones.
HAS_KIND = re.compile(
    r"linux-(modules|objects|signatures)-nvidia-"
    r"|nvidia-(headless|kernel-source|dkms|kernel-dkms|kernel-open-dkms)"
)
BRANCH_IN_NAME = re.compile(r"-(\d{3})(?=-|$)")
UPSTREAM = re.compile(r"(?:\d+:)?(\d{3}\.\d+(?:\.\d+)?)")


class Refusal(Exception):
    """What was asked for cannot or must not be done; nothing was changed.

    Args:
        message: What is wrong.
        cure: What the person writes or does instead.
    """

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(f"{message.rstrip('.')}. Cure: {cure.rstrip('.')}.")
        self.message, self.cure = message, cure


@dataclass(frozen=True)
class Host:
    """What decides about package names: the distribution, the machine, its GPUs and firmware."""

    distribution: str  # ubuntu, debian
    devices: Sequence[str] = ()  # PCI device IDs, 0x2330
    nvswitch: bool = False
    secure_boot: bool = False
    key_enrolled: bool = False  # the firmware trusts DKMS's key
    kernels: Sequence[str] = ()  # releases that can boot, oldest first


@dataclass(frozen=True)
class Wanted:
    """The inventory's words."""

    channel: str  # archive, cuda
    branch: str
    version: str = ""
    module: str = "auto"  # auto, open, proprietary
    flavour: str = "generic"  # of the kernel metapackage: generic, generic-hwe-24.04, amd64
    fabric_manager: bool = False
    dcgm: bool = False
    extra: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """One line of what apt would do: `Inst` to a version, or `Remv`."""

    action: str
    name: str
    version: str = ""
    before: str = ""


@dataclass
class Plan:
    """One transaction: exact versions to install, names to remove."""

    install: dict[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    #: Packages that no repository offers any more, as files that the host kept.
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Plan:
        """The transaction that does these steps and nothing else."""
        steps = list(steps)
        return cls(
            install={s.name: s.version for s in steps if s.action == "Inst"},
            remove=[s.name for s in steps if s.action == "Remv"],
            before={s.name: s.before for s in steps if s.before},
        )

    def words(self) -> list[str]:
        """The plan as apt-get reads it."""
        install = [self.files.get(n) or f"{n}={v}" for n, v in self.install.items()]
        return install + [f"{name}-" for name in self.remove]


def upstream(version: str) -> str:
    """`580.178.04` of a package's version `580.178.04-0ubuntu0.24.04.1`; empty if it is none."""
    found = UPSTREAM.match(version)
    return found[1] if found else ""


def branch_of(version: str) -> str:
    """`580` of a package's version."""
    return upstream(version).partition(".")[0]


def is_driver(name: str) -> bool:
    """Whether a package belongs to the driver, and so moves with it."""
    return bool(DRIVER_NAME.match(name)) and not BESIDE_DRIVER.match(name)


def branch_in(name: str) -> str:
    """The branch that a package's name carries; empty if none."""
    found = BRANCH_IN_NAME.search(name)
    return found[1] if found else ""


def driver_names(host: Host, wanted: Wanted, module: str) -> list[str]:
    """The packages to ask for, the one that tells the driver's versions first."""
    if wanted.channel == "archive":
        names = archive_names(wanted, module)
    elif host.distribution == "ubuntu":
        names = cuda_names_on_ubuntu(wanted, module)
    else:
        dkms = "nvidia-kernel-open-dkms" if module == "open" else "nvidia-kernel-dkms"
        names = ["nvidia-driver-cuda", dkms, "nvidia-persistenced"]
    if wanted.channel == "cuda":
        names += [f"linux-headers-{release}" for release in host.kernels[-1:]]
    if wanted.fabric_manager:
        names.append(fabric_manager(host, wanted))
    return names


def archive_names(wanted: Wanted, module: str) -> list[str]:
    """Ubuntu's server branch without DKMS, with the modules that Ubuntu signed."""
    server = f"{wanted.branch}-server"
    kernel = f"{server}-open" if module == "open" else server
    return [
        f"nvidia-headless-no-dkms-{kernel}",
        f"nvidia-utils-{server}",
        f"linux-modules-nvidia-{kernel}-{wanted.flavour}",
    ]


def cuda_names_on_ubuntu(wanted: Wanted, module: str) -> list[str]:
    """NVIDIA's compute-only set for Ubuntu: with the branch in its names up to 580."""
    suffix = f"-{wanted.branch}" if int(wanted.branch) <= LAST_SUFFIXED_BRANCH else ""
    dkms = f"nvidia-dkms{suffix}" + ("-open" if module == "open" else "")
    return [f"libnvidia-compute{suffix}", f"nvidia-utils{suffix}",
            f"nvidia-compute-utils{suffix}", dkms]  # fmt: skip


def fabric_manager(host: Host, wanted: Wanted) -> str:
    """The Fabric Manager's package, which must be of the driver's exact version."""
    suffixed = wanted.channel == "archive" or int(wanted.branch) <= LAST_SUFFIXED_BRANCH
    suffixed = suffixed and (wanted.channel == "archive" or host.distribution == "ubuntu")
    return f"nvidia-fabricmanager-{wanted.branch}" if suffixed else "nvidia-fabricmanager"


def dcgm_names(branch: str) -> list[str]:
    """DCGM 4 for the CUDA that a branch brings."""
    cuda = "cuda13" if int(branch) >= FIRST_CUDA_13_BRANCH else "cuda12"
    return ["datacenter-gpu-manager-4-core", f"datacenter-gpu-manager-4-{cuda}"]


def is_other_kind(name: str, module: str) -> bool:
    """Whether a package is of the open modules where proprietary ones are wanted, or the reverse."""
    return bool(HAS_KIND.match(name)) and ("-open" in name) != (module == "open")


def leftovers(installed: Mapping[str, str], wanted: Wanted, module: str) -> list[str]:
    """Installed packages of a driver of another branch, by name or version, or of another kind."""
    return sorted(
        name
        for name, version in installed.items()
        if is_driver(name)
        and (
            (branch_in(name) or branch_of(version) or wanted.branch) != wanted.branch
            or is_other_kind(name, module)
        )
    )


def version_pins(packages: Mapping[str, str], owner: str) -> str:
    """Apt preferences that hold exact versions.

    Args:
        packages: Version by name.
        owner: Who says when they move, for the reader of the file.
    """
    by_version: dict[str, list[str]] = {}
    for name, version in sorted(packages.items()):
        by_version.setdefault(version, []).append(name)
    stanzas = [
        f"Explanation: moves only when the inventory says so ({owner})\n"
        f"Package: {' '.join(names)}\nPin: version {version}\nPin-Priority: 1001\n"
        for version, names in by_version.items()
    ]
    return "# Laid down by Rackhand; changes here are overwritten.\n" + "\n".join(stanzas)


def pins(packages: Mapping[str, str]) -> str:
    """Preferences that hold the driver, and keep out what drags other drivers in."""
    return version_pins(packages, "role nvidia_driver") + (
        "\nExplanation: these replace the driver or DCGM by others\n"
        "Package: cuda cuda-11-* cuda-12-* cuda-13-* datacenter-gpu-manager\n"
        "Pin: version *\nPin-Priority: -1\n"
    )
