"""Each GPU: is it there, healthy, cool, and whose is its memory? Thresholds: docs/gpu-exporter.md
and NVIDIA's XID catalogue.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ops.doctor.finding import CRITICAL, INFO, WARNING, Case, Finding, Severity, dated
from ops.gpu_exporter.xid_kinds import KINDS, OTHER

HOT_C = 85
MARGIN_C = 5
ORPHANED_MIB = 1024
"""Above what a driver and its services hold themselves."""
XID_HOURS = 24.0
KNOWN_UNITS = ("engine@*.service", "ray*.service", "gpu_exporter.service", "nvidia-*.service",
               "dcgm*.service", "docker*.scope", "libpod*.scope")  # fmt: skip

LOST = Case(
    "gpu-lost",
    CRITICAL,
    "a GPU does not answer",
    "it has fallen off the bus or its firmware is dead: heat, power, its slot or the card",
    "ops restart host {host}; lost again after that: power off and on, reseat or replace the card",
)
MISSING = Case(
    "gpu-missing",
    CRITICAL,
    "{answering} GPU(s) answer, {expected} belong here",
    "{why}",
    "ops restart host {host}; still missing: lspci -d 10de:, reseat the card. Taken out for good? "
    "rm /var/lib/gpu_exporter/gpus.json and systemctl restart gpu_exporter",
)
XID = Case(
    "gpu-xid",
    CRITICAL,
    "the driver reports XID {code}: {meaning}",
    "{why}",
    "{how}",
)
ECC = Case(
    "gpu-ecc-uncorrected",
    CRITICAL,
    "{count} uncorrected memory errors since the driver was loaded",
    "memory of the GPU is failing; what ran on it may have computed nonsense",
    "ops restart host {host}   (a reset retires the rows; again within days: replace the card)",
)
REMAP_FAILED = Case(
    "gpu-row-remap-failed",
    CRITICAL,
    "the GPU has no spare memory rows left",
    "remapping of a broken row failed",
    "replace the card; until then leave it out of models[].gpus",
)
REMAP_PENDING = Case(
    "gpu-row-remap-pending",
    WARNING,
    "broken memory rows wait for a reset to be replaced",
    "the GPU noted them and goes on with spare rows only after a reset",
    "ops restart host {host}   (at the next window)",
)
RECOVERY = Case(
    "gpu-wants-recovery",
    CRITICAL,
    "the GPU asks for: {action}",
    "the driver has judged that it does not recover by itself",
    "{how}",
)
HOT = Case(
    "gpu-hot",
    WARNING,
    "the GPU is at {celsius} °C",
    "cooling does not keep up: fans, filters, air flow, or the room",
    "look at the fans and the intake; until then: nvidia-smi -i {index} -pl WATTS",
)
THROTTLED = Case(
    "gpu-throttled-by-hardware",
    WARNING,
    "the hardware slows the GPU down: {reason}",
    "{why}",
    "look at cooling and power supplies; until then: nvidia-smi -i {index} -pl WATTS",
)
ORPHANED = Case(
    "gpu-memory-orphaned",
    WARNING,
    "{mib} MiB are held by {what}",
    "{why}",
    "{how}",
)
NARROW = Case(
    "gpu-pcie-narrow",
    WARNING,
    "the GPU has {current} of {most} PCIe lanes",
    "it sits loosely, or in a slot with fewer lanes: loading and tensor parallelism are slower",
    "reseat the card; lspci -vv shows LnkSta (downgraded)",
)
MIG_PENDING = Case(
    "gpu-mig-pending",
    WARNING,
    "MIG is {current} and will be {pending} after a reset",
    "the mode was changed while something used the GPU",
    "ops restart host {host}",
)
PROHIBITED = Case(
    "gpu-compute-prohibited",
    CRITICAL,
    "no program may compute on the GPU",
    "its compute mode is Prohibited",
    "nvidia-smi -i {index} -c DEFAULT",
)
NVLINK = Case(
    "gpu-nvlink-down",
    CRITICAL,
    "NVLinks are down: {links}",
    "a bridge, a cable or the Fabric Manager: tensor parallelism stalls or crawls",
    "systemctl restart nvidia-fabricmanager where there is one, else ops restart host {host}",
)
CASES = (
    LOST, MISSING, XID, ECC, REMAP_FAILED, REMAP_PENDING, RECOVERY, HOT, THROTTLED, ORPHANED,
    NARROW, MIG_PENDING, PROHIBITED, NVLINK,
)  # fmt: skip

XID_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)")
# What gets the GPU well, by the action of the catalogue.
ACTIONS: dict[str, tuple[Severity, str, str]] = {
    "reboot": (CRITICAL, "the GPU is gone until the host boots anew", "ops restart host {host}"),
    "reset": (
        CRITICAL,
        "the GPU does not get well without a reset",
        "ops restart host {host}   (or, if idle: nvidia-smi --gpu-reset -i {index})",
    ),
    "restart": (
        WARNING,
        "the error was contained; the program that had the page is dead",
        "ops restart engine --limit {host}   (and reset the GPU at the next window)",
    ),
    "application": (
        INFO,
        "the fault of a program, not of the GPU: its own log says more",
        "nothing, unless an engine died with it: journalctl -u 'engine@*'",
    ),
    "other": (
        WARNING,
        "the GPU or its driver noted something; NVIDIA's XID catalogue says more",
        "nvidia-smi -q, and watch whether it comes again",
    ),
}
RECOVERIES = {
    "Reset": "ops restart host {host}   (or, if idle: nvidia-smi --gpu-reset -i {index})",
    "Reboot": "ops restart host {host}",
    "Drain P2P": "drain it, and ops restart host {host}",
    "Drain and Reset": "ops restart host {host}",
}


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what ails the GPUs."""
    gpu = evidence.get("gpu") or {}
    machine = evidence.get("machine") or {}
    answering: list[dict[str, Any]] = gpu.get("gpus") or []
    yield from _absent(host, gpu, machine)
    yield from _xids(host, gpu, machine)
    for about in answering:
        yield from _health(host, about)
    if gpu.get("loaded") and "processes" in gpu:
        yield from _orphans(host, gpu, bool(machine.get("systemd")))
    yield from _links(host, gpu)


def _name(about: Mapping[str, Any]) -> str:
    return f"GPU {about['index']} ({about['name']})"


def _absent(host: str, gpu: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[Finding]:
    """GPUs that do not answer, and those that are not even on the bus."""
    lost, answering = gpu.get("lost") or [], len(gpu.get("gpus") or [])
    for line in lost:
        yield LOST.found(host, line.partition(":")[0], line)
    if not gpu.get("loaded") or not (answering or lost):
        return
    # A container sees the whole bus and is given some of the GPUs: their nodes count there.
    seen = [name for name in gpu["nodes"] if re.fullmatch(r"nvidia\d+", name)]
    bus = len(gpu["devices"]) if machine.get("systemd") else len(seen)
    expected = max(bus, int(gpu.get("expected", 0)))
    if answering + len(lost) < expected:
        why = f"{bus} on the bus" if bus >= expected else f"{expected} were here, {bus} on the bus"
        yield MISSING.found(
            host, "GPUs", f"on the bus: {bus}; seen before: {gpu.get('expected', 0)}",
            answering=answering, expected=expected, why=f"a card is not found: {why}",
        )  # fmt: skip


def _address(text: str) -> str:
    """Of a PCI address the part that all its spellings share: 01:00."""
    found = re.search(r"([0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.\d)?$", text.strip())
    return found[1].lower() if found else text


def _xids(host: str, gpu: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[Finding]:
    """XIDs of the kernel log, one finding per GPU and code.

    One that wants a reset is history where the GPU itself says since that it wants none.
    """
    known = {_address(about["pci.bus_id"]): about for about in gpu.get("gpus") or []}
    seen: dict[tuple[str, int], list[str]] = defaultdict(list)
    for line in machine.get("kernel_log", []):
        if found := XID_LINE.search(line):
            seen[_address(found[1]), int(found[2])].append(line)
    for (address, code), lines in seen.items():
        about = known.get(address)
        if about is None and not machine.get("systemd"):
            continue  # another's GPU, in the log of the machine below this container
        kind = KINDS.get(code, OTHER)
        severity, why, how = ACTIONS.get(kind.action, ACTIONS["other"])
        age = (float(machine["now"]) - float(lines[-1].split()[0])) / 3600
        well = (about or {}).get("gpu_recovery_action") == "None"
        if severity is not INFO and (age > XID_HOURS or (well and kind.action == "reset")):
            severity, why = INFO, "it is past: the GPU answers and asks for nothing"
            how = f"nothing; does it come again, {how}"
        times = f"{len(lines)} in this boot, the last {age:.1f} hours ago"
        yield XID.found(
            host, _name(about) if about else f"GPU at {address}", *map(dated, lines[-3:]), times,
            severity=severity, code=code, meaning=kind.meaning, why=why,
            how=how.format(host=host, index=about["index"] if about else address),
        )  # fmt: skip


def _number(about: Mapping[str, Any], field: str) -> float | None:
    try:
        return float(about[field])
    except (KeyError, ValueError):  # [N/A], or a driver that does not know it
        return None


def _health(host: str, about: Mapping[str, Any]) -> Iterator[Finding]:
    """One GPU's own readings."""
    name, index = _name(about), about["index"]

    def told(field: str) -> str:
        return f"{field}: {about.get(field)}"

    errors = _number(about, "ecc.errors.uncorrected.volatile.total") or 0
    if errors:
        line = told("ecc.errors.uncorrected.volatile.total")
        yield ECC.found(host, name, line, count=int(errors))
    for field, case in (("remapped_rows.failure", REMAP_FAILED),
                        ("remapped_rows.pending", REMAP_PENDING)):  # fmt: skip
        if about.get(field) in ("Yes", "1"):
            yield case.found(host, name, told(field))
    action = about.get("gpu_recovery_action", "")
    if action in RECOVERIES:
        how = RECOVERIES[action].format(host=host, index=index)
        yield RECOVERY.found(host, name, told("gpu_recovery_action"), action=action, how=how)
    yield from _heat(host, about)
    now, most = (_number(about, f"pcie.link.width.{end}") for end in ("current", "max"))
    if now and most and now < most:
        line = told("pcie.link.width.current")
        yield NARROW.found(host, name, line, current=int(now), most=int(most))
    mig, pending = about.get("mig.mode.current"), about.get("mig.mode.pending")
    if mig != pending and {mig, pending} == {"Enabled", "Disabled"}:
        yield MIG_PENDING.found(host, name, told("mig.mode.pending"), current=mig, pending=pending)
    if about.get("compute_mode") == "Prohibited":
        yield PROHIBITED.found(host, name, told("compute_mode"), index=index)


def _heat(host: str, about: Mapping[str, Any]) -> Iterator[Finding]:
    """Temperature, the margin to slowing down, and slowing down."""
    name, index = _name(about), about["index"]
    celsius, margin = _number(about, "temperature.gpu"), _number(about, "temperature.gpu.tlimit")
    near = margin is not None and 0 < margin <= MARGIN_C  # some models always tell 0 or less
    if celsius is not None and (celsius > HOT_C or near):
        line = f"temperature.gpu: {celsius:.0f}, margin: {about.get('temperature.gpu.tlimit')}"
        yield HOT.found(host, name, line, celsius=int(celsius), index=index)
    for field, reason, why in (
        ("hw_thermal_slowdown", "heat", "it is too hot: fans, filters, air flow"),
        ("hw_power_brake_slowdown", "power brake", "the power supply asks for less"),
    ):
        if about.get(f"clocks_event_reasons.{field}") == "Active":
            line = f"clocks_event_reasons.{field}: Active"
            yield THROTTLED.found(host, name, line, reason=reason, why=why, index=index)


def _orphans(host: str, gpu: Mapping[str, Any], systemd: bool) -> Iterator[Finding]:
    """Memory that no living process of a known unit holds."""
    held: dict[str, float] = defaultdict(float)
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for process in gpu["processes"]:
        mib = _number(process, "used_memory") or 0.0
        held[process["gpu_uuid"]] += mib
        known = any(fnmatch.fnmatch(process["unit"], glob) for glob in KNOWN_UNITS)
        if process["dead"] and systemd:
            groups[process["gpu_uuid"], "dead"].append(process)
        elif systemd and not known:
            groups[process["gpu_uuid"], "stray"].append(process)
    for about in gpu["gpus"]:
        for kind in ("dead", "stray"):
            some = groups[about["uuid"], kind]
            mib = sum(_number(one, "used_memory") or 0.0 for one in some)
            if mib > ORPHANED_MIB:
                yield _orphaned(host, about, kind, some, mib)
        used = _number(about, "memory.used") or 0.0
        rest = used - held[about["uuid"]]
        mig = about.get("mig.mode.current") == "Enabled"
        if rest > 2 * ORPHANED_MIB and not mig:  # contexts and the driver's own take some
            yield _orphaned(host, about, "none", [], rest)


def _orphaned(
    host: str, about: Mapping[str, Any], kind: str, some: list[Mapping[str, Any]], mib: float
) -> Finding:
    """One GPU's orphaned memory, with process ids and the units that they came from."""
    pids = " ".join(one["pid"].strip() for one in some)
    lines = [
        f"pid {one['pid'].strip()}: {one['used_memory']} MiB, {one['name'] or one['process_name']}"
        f", unit {one['unit'] or 'none'}"
        for one in some
    ]
    texts = {
        "dead": (
            f"processes that have ended ({pids})",
            "a process was killed while the driver worked for it, and the driver holds on to it",
            "ops restart host {host}   (kill does not reach them)",
        ),
        "stray": (
            f"processes of no unit of ours ({pids})",
            "somebody started them by hand, or an engine's unit left them behind",
            f"ask who started them (ps -fp {','.join(pids.split())}), then: kill {pids}",
        ),
        "none": (
            "no process that can be seen",
            "a process in a container of another, or one that the driver did not let go",
            "fuser -v /dev/nvidia*; nobody there: ops restart host {host}",
        ),
    }
    what, why, how = texts[kind]
    used = f"memory.used: {about['memory.used']} of {about['memory.total']} MiB"
    return ORPHANED.found(
        host, _name(about), used, *lines, mib=round(mib), what=what, why=why,
        how=how.format(host=host) if "{host}" in how else how,
    )  # fmt: skip


def _links(host: str, gpu: Mapping[str, Any]) -> Iterator[Finding]:
    """NVLinks that are down beside others of the same GPU that are up."""
    parts = re.split(r"^GPU (\d+): ", gpu.get("nvlink") or "", flags=re.MULTILINE)[1:]
    for index, text in zip(parts[::2], parts[1::2], strict=True):
        up = re.findall(r"Link (\d+): [\d.]+ GB/s", text)
        down = re.findall(r"Link (\d+): <?inactive>?", text)
        if up and down:
            lines = [line for line in text.splitlines() if "nactive" in line]
            yield NVLINK.found(host, f"GPU {index}", *lines, links=", ".join(down))
