"""The layer that makes a metal server of an image: kernel, initramfs tools, the simulator.

It lies between the image and a host's own files, keyed by everything that makes it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ops.errors import OpsError
from ops.lab import control_machine
from ops.lab.cgroup import Group
from ops.lab.commands import run
from ops.lab.image import Image
from ops.lab.locks import locked
from ops.lab.mirror import build as mirror
from ops.lab.mirror import signing
from ops.lab.paths import CACHE
from ops.lab.upper import Upper

FILES = Path(__file__).with_name("files")
HOME = "usr/lib/rackhand-simulator"
PRELOADED = "kernel_release.so"
PROGRAMS = ("hardware.py", "boot.py", "loader.py")
UNIT = "simulated-machine.service"
MODPROBE = "rackhand-simulator.conf"
# glibc of Debian 11: what is linked against it runs on every later release
COMPILER = ("-target", "x86_64-linux-gnu.2.31", "-O2", "-shared", "-fPIC", "-s", "-Wall", "-Werror")
KERNELS = {
    "bookworm": (("linux-image-6.1.0-990-amd64", "6.1.990-1"),),
    "trixie": (("linux-image-6.12.0-990-amd64", "6.12.990-1"),),
    "ubuntu-24.04-facade": (
        ("linux-modules-6.8.0-90-generic", "6.8.0-90.91"),
        ("linux-image-6.8.0-90-generic", "6.8.0-90.91"),
        ("linux-image-generic", "6.8.0-90.91"),
    ),
}
ARCHIVE = "http://archive.rackhand.test/current"
SOURCE = "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {key}\n"
SUITES = {
    "bookworm": ("debian", "bookworm"),
    "trixie": ("debian", "trixie"),
    "ubuntu-24.04-facade": ("ubuntu", "noble noble-updates noble-security"),
}
INSTALL = """\
set -eu
export DEBIAN_FRONTEND=noninteractive APT_CONFIG=/run/kernels/apt.conf
apt-get install -y -q --no-install-recommends initramfs-tools zstd
dpkg -i /run/kernels/*.deb
rm -f /var/log/dpkg.log /var/log/apt/* /var/cache/apt/*.bin
"""
OUTSIDE = """\
set -eu
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 none /run/systemd/nspawn
mkdir -p "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
systemd-nspawn --quiet --register=no --keep-unit --as-pid2 --console=pipe --timezone=off \
  --resolv-conf=bind-host --machine="$3" --directory="$2/root" --bind-ro="$2/kernels:/run/kernels" \
  -- sh /run/kernels/install
"""


def ensure(image: Image, made_mirror: Path, say: Callable[[str], None] = lambda _: None) -> Path:
    """Build an image's layer unless it is there.

    Args:
        image: The image; it must have been built.
        made_mirror: Folder of the mirror, which has the kernels.
        say: Told what goes on, for a person who waits.

    Returns:
        The layer's folder.

    Raises:
        OpsError: A package could not be had; the message ends with apt's own words.
    """
    kernels = [mirror.find(made_mirror, *kernel) for kernel in KERNELS[image.name]]
    layer = CACHE / "images" / f"{image.name}-metal-{_key(image, kernels)}"
    if not layer.exists():
        with locked(layer.with_name(f".{layer.name}.lock")):
            if not layer.exists():
                say(f"giving the {image.name} image a kernel")
                _build(image, kernels, layer)
    return layer


def _key(image: Image, kernels: list[Path]) -> str:
    digest = hashlib.sha256(f"{image.folder.name}{INSTALL}{SOURCE}{ARCHIVE}".encode())
    owner, suites = SUITES[image.name]
    digest.update(f"{suites}{signing.fingerprint(owner)}".encode())
    for path in [*kernels, *sorted(FILES.iterdir()), Path(__file__)]:
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(image: Image, kernels: list[Path], layer: Path) -> None:
    partial = layer.with_name(f".{layer.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    asked = partial / "kernels"
    asked.mkdir(parents=True)
    for path in kernels:
        shutil.copy(path, asked)
    settings = [*control_machine.apt_settings(), 'APT::Keep-Downloaded-Packages "false";']
    (asked / "apt.conf").write_text("\n".join(settings) + "\n")
    (asked / "install").write_text(INSTALL)
    _install(image, partial, layer.with_name(f"{layer.name}.log"))
    _lay_down(Upper(partial / "upper"), image)
    (partial / "upper").rename(layer)
    shutil.rmtree(partial)


def _install(image: Image, partial: Path, log: Path) -> None:
    name = f"metal-{image.name}"
    group = Group(f"chamber-{name}")
    group.remove()
    with log.open("w") as output:
        done = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", OUTSIDE),
                *("sh", str(image.folder), str(partial), name.replace(".", "-")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=group.joiner(),
            check=False,
        )
    group.remove()
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise OpsError(
            f"The {image.name} image could not be given a kernel:\n{tail}",
            place=str(log),
            cure="check that the archive is reachable, or set RACKHAND_DEBIAN_MIRROR",
        )


def _lay_down(upper: Upper, image: Image) -> None:
    """Add the simulator's own files, which no package manager of the host knows."""
    for name in PROGRAMS:
        upper.write(f"{HOME}/{name}", (FILES / name).read_bytes())
    (upper.root / HOME).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ziglang", "cc", *COMPILER, "-fvisibility=hidden"]
    run([*command, "-o", upper.root / HOME / PRELOADED, FILES / "kernel_release.c"])
    upper.write("etc/ld.so.preload", f"/{HOME}/{PRELOADED}\n")
    upper.write(f"usr/lib/modprobe.d/{MODPROBE}", (FILES / MODPROBE).read_bytes())
    upper.write(f"etc/systemd/system/{UNIT}", (FILES / UNIT).read_bytes())
    upper.link(f"etc/systemd/system/sysinit.target.wants/{UNIT}", f"../{UNIT}")
    owner, suites = SUITES[image.name]
    keyring = f"usr/share/keyrings/rackhand-{owner}-archive.gpg"
    upper.write(keyring, signing.keyring(owner).read_bytes())
    source = SOURCE.format(uri=f"{ARCHIVE}/{owner}", suites=suites, key=f"/{keyring}")
    upper.write(f"etc/apt/sources.list.d/simulated-{owner}.sources", source)
