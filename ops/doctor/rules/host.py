"""The machine: disks, memory, clock, packages, names, and what was left unfinished."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ops.doctor.finding import CRITICAL, INFO, WARNING, Case, Finding, dated

DISK_WARNING, DISK_CRITICAL = 0.85, 0.95
INODES_WARNING = 0.90
MEMORY_LEFT = 0.05
GIB = 1 << 30
SHARED = "/dev/shm"  # noqa: S108 - spoken of, never written
SHM_BYTES = 1 * GIB
RECENT_HOURS = 1.0
OLD_HOURS = 24.0
OFF_WARNING_S, OFF_CRITICAL_S = 2.0, 60.0
"""Certificates and tokens stop at minutes; locks and logs are out of step at seconds."""

DISK = Case(
    "disk-filling",
    WARNING,
    "{path} is {percent} % full, {free} left",
    "{why}",
    "{how}",
)
INODES = Case(
    "inodes-running-out",
    WARNING,
    "{path} has used {percent} % of its inodes",
    "very many small files: caches, sessions or a runaway log",
    "find {path} -xdev -printf '%h\\n' | sort | uniq -c | sort -n | tail, and remove what fills it",
)
READ_ONLY = Case(
    "disk-read-only",
    CRITICAL,
    "{path} has become read-only",
    "the kernel met errors on the disk and stopped writing to it",
    "dmesg | grep -iE 'error|remount', then fsck from a rescue boot; replace the disk if it has "
    "I/O errors",
    (r"Remounting filesystem read-only", r"EXT4-fs error"),
)
MEMORY = Case(
    "memory-short",
    WARNING,
    "{left} of memory left of {total}",
    "what runs here needs more than there is; the kernel will kill something",
    "ps -eo rss,pid,unit,cmd --sort=-rss | head; move a model, or add memory (1.5 x weights)",
)
OOM = Case(
    "out-of-memory-kill", CRITICAL,
    "the kernel killed {process} for want of memory",
    "the host, or the unit's MemoryMax, has too little memory for what runs here",
    "raise the unit's limit (engine_memory_max, agent_app_memory_max) or free memory, then ops "
    "provision --limit {host}",
    (r"Out of memory: Killed process \d+ \((?P<process>[^)]+)\)",
     r"Memory cgroup out of memory: Killed process \d+ \((?P<process>[^)]+)\)"),
)  # fmt: skip
SHM = Case(
    "shared-memory-small",
    WARNING,
    "{subject} has {left} free",
    "engines on several GPUs and data loaders pass tensors through it",
    "mount -o remount,size=50% /dev/shm   (in a container: --shm-size=16g or --ipc=host)",
)
CLOCK = Case(
    "clock-not-kept",
    WARNING,
    "nothing keeps the clock right",
    "{why}",
    "ops provision --tags base --limit {host}; then timedatectl timesync-status",
)
CLOCK_OFF = Case(
    "clock-off",
    WARNING,
    "the clock is {seconds} off from this machine's",
    "it is not kept, or one of the two machines' clocks is wrong",
    "systemctl restart systemd-timesyncd   (chrony: chronyc makestep), then timedatectl",
)
PACKAGES = Case(
    "packages-half-configured",
    CRITICAL,
    "dpkg has packages that are half installed",
    "an installation was interrupted: power, a full disk, a killed apt",
    "dpkg --configure -a && apt-get -f install",
)
REBOOT = Case(
    "reboot-required",
    INFO,
    "an upgrade waits for a reboot",
    "a kernel or a library was replaced under what runs",
    "ops restart host {host}",
)
NAMES = Case(
    "names-not-resolved",
    WARNING,
    "{names} cannot be resolved on the host",
    "its name servers do not answer, or the name does not exist",
    "resolvectl status; resolvectl query {first}; look at /etc/resolv.conf",
)
UNIT_FAILED = Case(
    "unit-failed",
    WARNING,
    "{unit} has failed ({result})",
    "{why}",
    "journalctl -u {unit} -e; mended? systemctl restart {unit}",
)
BLOCKED = Case(
    "tasks-hang-in-kernel",
    WARNING,
    "processes hang in the kernel for minutes",
    "a disk, a network file system or a driver does not answer",
    "dmesg | grep -A20 'blocked for more'; if it is the GPU driver: ops restart host {host}",
    (r"blocked for more than \d+ seconds", r"hung_task"),
)
CASES = (DISK, INODES, READ_ONLY, MEMORY, OOM, SHM, CLOCK, CLOCK_OFF, PACKAGES, REBOOT, NAMES,
         UNIT_FAILED, BLOCKED)  # fmt: skip
CURES = {
    "/var/log/journal": "journalctl --vacuum-size=500M",
    "/srv/models": "ops model prune",
    "/opt/vllm": "ops model prune",
    "/var/lib/docker": "docker system prune",
    "/var/cache/apt": "apt-get clean",
    "/var/lib/postgresql": "agent-app retention run --dry-run, and look at agent_app_retention",
    "/opt/agent_app/releases": "ops provision --tags agent_app --limit {host}",
}
OTHERS = re.compile(
    r"(engine|agent_app|redis-server|postgresql)[@._]|nginx\.|certbot\.|nvidia-fabricmanager"
)
"""Units that another module of rules speaks of."""


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what ails the machine."""
    machine = evidence.get("machine") or {}
    if not machine:
        return
    for disk in machine["disks"]:
        yield from _disk(host, disk, machine)
    yield from _memory(host, machine, len((evidence.get("gpu") or {}).get("gpus") or []))
    yield from _kernel(host, machine)
    yield from _clock(host, machine, evidence)
    audit = machine["packages"].get("audit") or ""
    if audit or machine["packages"].get("journal"):
        lines = [line for line in audit.splitlines() if line.startswith(" ")]
        yield PACKAGES.found(host, "dpkg", *(lines or audit.splitlines() or ["dpkg --audit"]))
    if machine["reboot_required"]:
        yield REBOOT.found(host, "host", "/run/reboot-required")
    missing = evidence.get("names") or {}
    if missing:
        names = ", ".join(missing)
        yield NAMES.found(
            host, "DNS", *(f"{name}: {why}" for name, why in missing.items()),
            names=names, first=next(iter(missing)),
        )  # fmt: skip
    for unit in evidence.get("units", []):
        if unit["active"] == "failed" and not OTHERS.match(unit["unit"]):
            yield UNIT_FAILED.found(
                host, unit["unit"], f"{unit['sub']}, {unit['result']}", *unit["log"][-4:],
                unit=unit["unit"], result=unit["result"],
                why="its last log lines say why",
            )  # fmt: skip


def size(count: float) -> str:
    """Return bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _disk(host: str, disk: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[Finding]:
    """One file system."""
    path, total = disk["path"], disk["total"] or 1
    share = disk["used"] / total
    if share > DISK_WARNING and not disk["read_only"]:
        # In a container a path may lie on another disk than its parent's; du -x told those apart.
        inside = {p: n for p, n in machine["takers"].items() if path == _mount(p, machine)}
        most = max(inside, key=inside.__getitem__, default="")
        why = f"{most} holds {size(inside[most])} of it" if most else "something writes to it"
        by_hand = f"du -xh --max-depth=2 {path} | sort -h | tail"
        how = f"{CURES[most]}; {by_hand}" if most else by_hand
        yield DISK.found(
            host, path, f"{size(disk['used'])} of {size(total)} used on {disk['device']}",
            *(f"{size(n)} in {p}" for p, n in sorted(inside.items(), key=lambda x: -x[1])[:3]),
            severity=CRITICAL if share > DISK_CRITICAL else WARNING,
            path=path, percent=int(100 * share), free=size(total - disk["used"]), why=why,
            how=how.format(host=host),
        )  # fmt: skip
    if disk["inodes"]:
        taken = 1 - disk["inodes_free"] / disk["inodes"]
        if taken > INODES_WARNING and disk["kind"] not in ("btrfs", "zfs", "xfs"):
            line = f"{disk['inodes_free']} of {disk['inodes']} inodes left"
            yield INODES.found(host, path, line, path=path, percent=int(100 * taken))


def _mount(path: str, machine: Mapping[str, Any]) -> str:
    """The file system that a path lies on."""
    places = [disk["path"] for disk in machine["disks"]]
    holds = [p for p in places if path == p or path.startswith(p.rstrip("/") + "/")]
    return max(holds, key=len, default="/")


def _memory(host: str, machine: Mapping[str, Any], gpus: int) -> Iterator[Finding]:
    """Memory and shared memory."""
    memory = machine["memory"]
    if memory["total"] and memory["available"] < MEMORY_LEFT * memory["total"]:
        left, total = size(memory["available"]), size(memory["total"])
        line = f"available {left} of {total}, swap free {size(memory['swap_free'])}"
        yield MEMORY.found(host, "memory", line, left=left, total=total)
    total_shm, free = memory.get("shm_total"), memory.get("shm_free", 0)
    if total_shm is not None and gpus and (free < SHM_BYTES or not total_shm):
        line = f"{size(free)} of {size(total_shm)} free"
        severity = WARNING if gpus > 1 or free < SHM_BYTES / 16 else INFO
        yield SHM.found(host, SHARED, line, left=size(free), severity=severity)


def _kernel(host: str, machine: Mapping[str, Any]) -> Iterator[Finding]:
    """What the kernel log tells of memory, disks and hangs."""
    kills: dict[str, list[str]] = {}
    others: dict[Case, list[str]] = {}
    for line in machine["kernel_log"]:
        for pattern in OOM.patterns:
            if found := re.search(pattern, line):
                kills.setdefault(found["process"], []).append(line)
                break
        for case in (READ_ONLY, BLOCKED):
            if any(re.search(pattern, line) for pattern in case.patterns):
                others.setdefault(case, []).append(line)
    for process, lines in kills.items():
        age = (machine["now"] - float(lines[-1].split()[0])) / 3600
        if age < OLD_HOURS:
            severity = CRITICAL if age < RECENT_HOURS else WARNING
            yield OOM.found(
                host, process, *map(dated, lines[-3:]), severity=severity, process=process
            )
    for case, lines in others.items():
        yield case.found(
            host, "disk" if case is READ_ONLY else "kernel", *lines[-3:], path="a disk"
        )


def _clock(host: str, machine: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the clock is kept, and how far it is off from ours."""
    clock, off = machine["clock"], evidence.get("clock_off_seconds")
    if off is not None and abs(off) > OFF_WARNING_S:
        yield CLOCK_OFF.found(
            host, "clock", f"{off:+.1f} s against the machine that asked",
            severity=CRITICAL if abs(off) > OFF_CRITICAL_S else WARNING,
            seconds=f"{abs(off):.0f} seconds",
        )  # fmt: skip
    # In a container the machine below keeps the clock.
    if clock.get("NTPSynchronized") == "no" and not machine["container"]:
        why = (
            "no client for NTP runs"
            if not clock.get("client")
            else (f"{clock['client']} reaches no server")
        )
        yield CLOCK.found(host, "clock", f"NTPSynchronized=no, client: {clock['client']}", why=why)
