#!/usr/bin/env python3
"""nvidia-persistenced of the simulator: sets the GPUs' persistence mode and stays."""

from __future__ import annotations

import argparse
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

HOME = Path("/run/nvidia-persistenced")


def main() -> int:
    """Set the mode, leave a daemon behind."""
    parser = argparse.ArgumentParser(prog="nvidia-persistenced", description=__doc__)
    parser.add_argument(
        "--version", action="version", version="nvidia-persistenced:  version @driver@  (simulator)"
    )
    parser.add_argument("--user", "-u", default="root")
    parser.add_argument("--group", "-g")
    parser.add_argument("--verbose", "-V", action="store_true")
    parser.add_argument("--persistence-mode", action=argparse.BooleanOptionalAction, default=True)
    wanted = parser.parse_args()
    mode = "1" if wanted.persistence_mode else "0"
    done = subprocess.run(["nvidia-smi", "-pm", mode], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout + done.stderr, end="", file=sys.stderr)
        print(
            "nvidia-persistenced failed to initialize. Check syslog for more details.",
            file=sys.stderr,
        )
        return 1
    HOME.mkdir(exist_ok=True)
    if child := os.fork():
        (HOME / "nvidia-persistenced.pid").write_text(f"{child}\n")
        return 0
    os.setsid()
    user = pwd.getpwnam(wanted.user)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    return 0


if __name__ == "__main__":
    sys.exit(main())
