"""What ails the machine itself: disks, memory, kernel, clock, packages."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from ops.doctor.evidence.command import ask, first, read

REAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "vfat")
"""File systems that fill; images, pseudo ones and those in memory do not count."""
SOUGHT = "|".join(
    (
        r"NVRM|[Nn]vidia|nouveau",
        r"Out of memory|oom-kill|oom_reaper|Killed process",
        r"I/O error|EXT4-fs error|XFS .*(?:error|corrupt|shutdown)|Remounting filesystem read-only",
        r"module verification failed|unsigned module|Key was rejected|unavailable key",
        r"hung_task|blocked for more",
    )
)
KERNEL_LINES = 300
SHM = "/dev/shm"  # noqa: S108 - looked at, never written
TAKERS = ("/var/log/journal", "/srv/models", "/opt/vllm", "/var/lib/docker", "/var/cache/apt",
          "/var/lib/postgresql", "/opt/agent_app/releases")  # fmt: skip
FULL_ENOUGH = 0.80
"""From here on it is worth the time to tell what fills a disk."""


def gather() -> dict[str, Any]:
    """Return all of it."""
    found = disks()
    full = any(disk["used"] > FULL_ENOUGH * disk["total"] for disk in found)
    return {
        "now": time.time(),
        "uptime": float((read("/proc/uptime").split() or ["0"])[0]),
        "container": container(),
        "systemd": Path("/run/systemd/system").is_dir(),
        "root": os.geteuid() == 0,
        "os": first(r'^PRETTY_NAME="?([^"\n]*)', read("/etc/os-release")),
        "processors": os.cpu_count() or 1,
        "load": float((read("/proc/loadavg").split() or ["0"])[0]),
        "memory": memory(),
        "disks": found,
        "takers": takers() if full else {},
        "kernel_log": kernel_log(),
        "clock": clock(),
        "packages": packages(),
        "reboot_required": Path("/run/reboot-required").exists(),
    }


def container() -> str:
    """Return what kind of container this is; empty on a machine."""
    if Path("/.dockerenv").exists():
        return "docker"
    told = read("/run/systemd/container").strip()
    environment = read("/proc/1/environ").split("\0")
    named = [word.partition("=")[2] for word in environment if word.startswith("container=")]
    if told or named:
        return told or named[0]
    return first(r"(kubepods|docker|containerd)", read("/proc/self/cgroup"))


def memory() -> dict[str, int]:
    """Return the memory in bytes, and that of /dev/shm; a container's own limit counts."""
    lines = dict(line.split(":", 1) for line in read("/proc/meminfo").splitlines() if ":" in line)

    def amount(name: str) -> int:
        return int(lines.get(name, "0 kB").split()[0]) * 1024

    found = {"total": amount("MemTotal"), "available": amount("MemAvailable"),
             "swap_total": amount("SwapTotal"), "swap_free": amount("SwapFree")}  # fmt: skip
    limit = read("/sys/fs/cgroup/memory.max").strip()
    used = read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit() and int(limit) < found["total"]:
        cache = int(first(r"^inactive_file (\d+)", read("/sys/fs/cgroup/memory.stat")) or 0)
        found["total"] = int(limit)
        found["available"] = min(found["available"], int(limit) - int(used) + cache)
    try:
        shm = os.statvfs(SHM)
        found["shm_total"] = shm.f_blocks * shm.f_frsize
        found["shm_free"] = shm.f_bavail * shm.f_frsize
    except OSError:
        pass
    return found


def disks() -> list[dict[str, Any]]:
    """Return the file systems that fill, each once, with bytes and inodes as df counts them."""
    found, seen = [], set()
    for line in read("/proc/mounts").splitlines():
        device, place, kind, options = line.split()[:4]
        place = place.replace("\\040", " ")
        if kind not in REAL or not Path(place).is_dir():  # a single file of a container
            continue
        try:
            about = os.statvfs(place)
            number = Path(place).stat().st_dev
        except OSError:
            continue
        if number in seen or not about.f_blocks:
            continue
        seen.add(number)
        used = (about.f_blocks - about.f_bfree) * about.f_frsize
        found.append(
            {
                "path": place,
                "device": device,
                "kind": kind,
                "used": used,
                "total": used + about.f_bavail * about.f_frsize,
                "inodes": about.f_files,
                "inodes_free": about.f_favail,
                "read_only": "ro" in options.split(","),
            }
        )
    return found


def takers() -> dict[str, int]:
    """Return how many bytes the usual takers of a disk hold."""
    there = [path for path in TAKERS if Path(path).exists()]
    done = ask("du", "-sxk", *there, seconds=20.0, also_errors=False) if there else None
    lines = [line.split("\t") for line in done.lines] if done else []
    return {path: int(size) * 1024 for size, path in lines}


def kernel_log() -> list[str]:
    """Return this boot's kernel lines that matter, `<seconds since 1970> <text>`, newest last."""
    words = ["journalctl", "-t", "kernel", "-b", "-o", "short-unix", "--no-pager", "-q"]
    done = ask(*words, "-n", str(KERNEL_LINES), "-g", SOUGHT)
    if done.status == 0 and done.lines:
        return [stamped(line) for line in done.lines]
    boot = time.time() - float((read("/proc/uptime").split() or ["0"])[0])
    plain = ask("dmesg", "--kernel") if shutil.which("dmesg") else None
    if plain is None or plain.status:
        return []
    found = []
    for line in plain.lines:
        since, text = first(r"^\[\s*(\d+\.\d+)\]", line), line.partition("] ")[2]
        if first(f"({SOUGHT})", text):
            found.append(f"{boot + float(since or 0):.0f} {text}")
    return found[-KERNEL_LINES:]


def stamped(line: str) -> str:
    """Turn journalctl's `1700000000.123456 host kernel: text` into `1700000000 text`."""
    moment, _, rest = line.strip().partition(" ")
    return f"{moment.partition('.')[0]} {rest.partition(': ')[2]}"


def clock() -> dict[str, str]:
    """Return whether the clock is kept, as systemd says; empty where nobody tells."""
    done = ask("timedatectl", "show", "-p", "NTP", "-p", "NTPSynchronized")
    if done.status:
        return {}
    found = dict(line.split("=", 1) for line in done.lines if "=" in line)
    found["client"] = ", ".join(
        unit
        for unit in ("systemd-timesyncd", "chrony", "ntpsec", "ntp")
        if ask("systemctl", "is-active", f"{unit}.service").output.strip() == "active"
    )
    return found


def packages() -> dict[str, Any]:
    """Return what dpkg left half done, and what holds its lock."""
    if not shutil.which("dpkg"):
        return {}
    return {
        # Its errors are not packages: a configuration file that it may not read, say.
        "audit": ask("dpkg", "--audit", also_errors=False).output.strip(),
        "journal": len(list(Path("/var/lib/dpkg/updates").glob("[0-9]*"))),
    }
