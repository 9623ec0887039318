"""Units of ours and failed ones, with the log of the run that went wrong."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

from ops.doctor.evidence.command import ask, first, read, redact

OURS = (
    "engine@*.service",
    "agent_app@*.service",
    "agent_app_migrate@*.service",
    "agent_app_retention.*",
    "nginx.service",
    "postgresql@*.service",
    "redis-server@*.service",
    "certbot.service",
    "certbot.timer",
    "gpu_exporter.service",
    "nvidia-fabricmanager.service",
    "nvidia-persistenced.service",
)
SHOWN = (
    "Id", "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus",
    "ExecMainCode", "MainPID", "ActiveEnterTimestampMonotonic", "InvocationID", "UnitFileState",
    "MemoryMax", "TimeoutStartUSec",
)  # fmt: skip
YOUNG_SECONDS = 900.0
"""A unit that was started again and runs for less is not yet known to be well."""
LOG_LINES = 500
MOST_LINES = 250
MOST_LETTERS = 1000


def gather() -> list[dict[str, Any]]:
    """Return the units; empty where there is no systemd."""
    listed = ask("systemctl", "list-units", "--all", "--output=json", also_errors=False)
    if listed.status:
        return []
    names = [
        unit["unit"]
        for unit in json.loads(listed.output)
        if unit["active"] == "failed"
        or (unit["load"] != "not-found" and any(fnmatch.fnmatch(unit["unit"], o) for o in OURS))
    ]
    uptime = float((read("/proc/uptime").split() or ["0"])[0])
    return [state(block, uptime) for block in show(names)]


def show(names: list[str]) -> list[dict[str, str]]:
    """Return systemd's properties of units."""
    if not names:
        return []
    done = ask("systemctl", "show", "-p", ",".join(SHOWN), "--", *names)
    blocks = done.output.strip().split("\n\n")
    return [dict(line.split("=", 1) for line in b.splitlines() if "=" in line) for b in blocks]


def state(shown: dict[str, str], uptime: float) -> dict[str, Any]:
    """Return one unit; its log only where something is wrong, or was a moment ago."""
    entered = int(shown.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    found: dict[str, Any] = {
        "unit": shown.get("Id", ""),
        "active": shown.get("ActiveState", ""),
        "sub": shown.get("SubState", ""),
        "result": shown.get("Result", ""),
        "restarts": int(shown.get("NRestarts") or 0),
        "status": int(shown.get("ExecMainStatus") or 0),
        "pid": int(shown.get("MainPID") or 0),
        "enabled": shown.get("UnitFileState", ""),
        "memory_max": shown.get("MemoryMax", ""),
        "active_seconds": uptime - entered if shown.get("ActiveState") == "active" else None,
        "log": [],
        "log_before": [],
        "log_before_at": 0.0,
    }
    young = (found["active_seconds"] or 0.0) < YOUNG_SECONDS
    engine = found["unit"].startswith("engine@")
    troubled = found["active"] not in ("active", "inactive") or found["result"] != "success"
    if troubled or (young and found["restarts"]) or (engine and found["active"] == "active"):
        invocation = shown.get("InvocationID", "")
        found["log"], found["log_before"], found["log_before_at"] = logs(found["unit"], invocation)
    return found


def logs(unit: str, invocation: str) -> tuple[list[str], list[str], float]:
    """Return the log of a unit's present or last run, of the run before that, and when that began.

    The moment is in seconds since 1970, 0 where there was no run before.

    Args:
        unit: The unit.
        invocation: systemd's id of the run that it is in now; empty where it is in none.
    """
    fields = "MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID,_PID"  # and always the moment
    words = ["journalctl", "-u", unit, "-b", "-o", "json", "-q", "--no-pager"]
    done = ask(*words, "-n", str(LOG_LINES), f"--output-fields={fields}", also_errors=False)
    runs: dict[str, list[str]] = {}
    began: dict[str, float] = {}
    for line in done.lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the first line of an output that was too long
            continue
        # systemd's own words on a run carry its id apart from systemd's own.
        run = entry.get("INVOCATION_ID") or entry.get("_SYSTEMD_INVOCATION_ID") or ""
        if entry.get("_PID") == "1" and not entry.get("INVOCATION_ID"):
            run = next(reversed(runs), "")
        runs.setdefault(run, []).extend(text_lines(entry.get("MESSAGE")))
        began.setdefault(run, int(entry.get("__REALTIME_TIMESTAMP", 0)) / 1e6)
    last = list(runs)
    present = invocation if invocation in runs else (last[-1] if last else "")
    before = [run for run in last if run != present][-1:]
    now = runs.get(present, [])[-MOST_LINES:]
    return (now, runs[before[0]][-MOST_LINES:], began[before[0]]) if before else (now, [], 0.0)


def text_lines(message: Any) -> list[str]:
    """Return a message of the journal as lines; one with colours comes as numbers."""
    if isinstance(message, list):
        message = bytes(message).decode(errors="replace")
    return [redact(line)[:MOST_LETTERS] for line in str(message or "").splitlines()]


def listeners() -> dict[str, dict[str, str]]:
    """Return who listens where: by port, address, process, process id and unit."""
    found = {}
    for line in ask("ss", "-Hltnp", also_errors=False).lines:
        cells = line.split()
        address, _, port = cells[3].rpartition(":")
        pid = first(r"pid=(\d+)", line)
        group = read(f"/proc/{pid}/cgroup") if pid else ""
        found[port] = {
            "address": address,
            "process": first(r'\(\("([^"]*)"', line),
            "pid": pid,
            "unit": first(r"/([^/\n]+\.(?:service|scope))(?:/[^\n]*)?$", group),
        }
    return found
