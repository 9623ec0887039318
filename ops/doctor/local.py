"""`ops doctor --local`: this machine, without inventory, SSH or systemd. Needs only Python."""

from __future__ import annotations

import socket
import time

from ops.doctor.evidence import program
from ops.doctor.finding import Report
from ops.doctor.judge import LOCAL, judge


def examine() -> Report:
    """Return what ails this machine: GPUs, driver, disks, memory."""
    began = time.monotonic()
    evidence = program.local()
    gpu = evidence.get("gpu") or {}
    if not (gpu.get("devices") or gpu.get("nodes") or gpu.get("loaded")):
        evidence["complaints"].append("GPUs: none on the PCI bus and no driver")
    report = judge(socket.gethostname(), evidence, LOCAL)
    return Report((report,), at=time.time(), seconds=time.monotonic() - began)
