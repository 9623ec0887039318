#!/usr/bin/env python3
"""DKMS of the simulator: it "builds" a driver's module for each kernel that has headers."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path("/usr/src")
STATE = Path("/var/lib/dkms")
COMPILER = "/usr/lib/dkms/module_file.py"
NO_HEADERS = 77  # the module was not built, and that is no failure of the package


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="dkms", description=__doc__)
    parser.add_argument("--version", action="version", version="dkms-3.2.90 (simulator)")
    parser.add_argument(
        "action", choices=["add", "build", "install", "autoinstall", "remove", "status"]
    )
    parser.add_argument("module", nargs="?", help="name/version")
    parser.add_argument("-k", "--kernelver", default="")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--force", action="store_true")
    wanted = parser.parse_args()
    if wanted.action == "status":
        return status()
    if wanted.action == "autoinstall":
        sources = sorted(SOURCES.glob("*/simulated-module.json"))
        return max([install(source.parent, wanted.kernelver) for source in sources], default=0)
    source = SOURCES / (wanted.module or "").replace("/", "-")
    if wanted.action == "remove":
        return remove(wanted.module)
    if not (source / "dkms.conf").exists():
        print(f"Error! Could not find module source directory: {source}", file=sys.stderr)
        return 2
    return 0 if wanted.action == "add" else install(source, wanted.kernelver)


def install(source: Path, kernel: str) -> int:
    """Build and install a module for one kernel."""
    name, version = source.name.split("-", 1)
    if not Path("/lib/modules", kernel, "build").exists():
        print(
            f"Error! Your kernel headers for kernel {kernel} cannot be found at "
            f"/lib/modules/{kernel}/build.\nPlease install the linux-headers-{kernel} package. "
            f"Module build for kernel {kernel} was skipped.",
            file=sys.stderr,
        )
        return NO_HEADERS
    described = json.loads((source / "simulated-module.json").read_text())
    print(f"Building module {name}/{version} for {kernel} (simulator)")
    target = Path("/lib/modules", kernel, "updates/dkms", f"{name}.ko")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as output:
        words = [COMPILER, kernel, described["version"], described["licence"]]
        subprocess.run([sys.executable, *words], stdout=output, check=True)
    record = STATE / name / version / kernel
    record.mkdir(parents=True, exist_ok=True)
    return subprocess.call(["depmod", kernel])


def remove(module: str) -> int:
    """Take a module away from every kernel it was built for."""
    folder = STATE / module
    name = module.partition("/")[0]
    for record in sorted(folder.glob("*")):
        built = Path("/lib/modules", record.name, "updates/dkms", f"{name}.ko")
        built.unlink(missing_ok=True)
        if Path("/lib/modules", record.name, "modules.order").exists():
            subprocess.call(["depmod", record.name])
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def status() -> int:
    """Print what is installed for which kernel, in DKMS's words."""
    for record in sorted(STATE.glob("*/*/*")):
        name, version, kernel = record.parts[-3:]
        print(f"{name}/{version}, {kernel}, x86_64: installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
