#!/usr/bin/env python3
"""nv-fabricmanager of the simulator: runs where an NVSwitch and a driver of its version are."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

VERSION = "@driver@"
LOADED = Path("/proc/driver/nvidia/version")
SWITCHES = Path("/proc/driver/nvidia-nvswitch/devices")


def main() -> int:
    """Check the driver and the switches, leave a daemon behind."""
    if "--version" in sys.argv or "-v" in sys.argv:
        print(f"Fabric Manager version is : {VERSION} (simulator)")
        return 0
    found = re.search(r"  (\d+(\.\d+)+)  ", LOADED.read_text()) if LOADED.exists() else None
    if found is None:
        return refuse("failed to initialize: the NVIDIA driver is not loaded")
    if found[1] != VERSION:
        return refuse(
            f"fabric manager NVIDIA GPU driver interface version {VERSION} don't match with "
            f"driver version {found[1]}. Please update with matching NVIDIA driver package."
        )
    if not SWITCHES.is_dir() or not any(SWITCHES.iterdir()):
        return refuse(
            "request to query NVSwitch device information from NVSwitch driver failed with "
            "error:WARNING Nothing to do [NV_WARN_NOTHING_TO_DO]"
        )
    if os.fork():
        return 0
    os.setsid()
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    return 0


def refuse(reason: str) -> int:
    """Say why Fabric Manager does not run."""
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
