"""PostgreSQL and Redis: do they run, and do they answer?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ops.doctor.finding import CRITICAL, WARNING, Case, Finding

REDIS_DOWN = Case(
    "redis-down",
    CRITICAL,
    "Redis {name} does not run: {state}",
    "{why}",
    "systemctl start {unit}; it does not stay? journalctl -b -u {unit}, then ops provision --tags "
    "redis --limit {host}",
)
REDIS_SILENT = Case(
    "redis-does-not-answer",
    CRITICAL,
    "Redis {name} runs and does not answer at port {port}",
    "{why}",
    "journalctl -b -u {unit}; systemctl restart {unit}",
)
REDIS_REFUSES = Case(
    "redis-refuses",
    CRITICAL,
    "Redis {name} refuses commands",
    "{why}",
    "journalctl -b -u {unit}; free disk or memory (ops doctor {host}), then systemctl restart "
    "{unit}",
)
POSTGRES_DOWN = Case(
    "postgres-down",
    CRITICAL,
    "PostgreSQL does not run: {state}",
    "{why}",
    "systemctl start {unit}; it does not stay? tail /var/log/postgresql/*.log, then ops provision "
    "--tags postgres --limit {host}",
)
POSTGRES_REFUSES = Case(
    "postgres-refuses",
    CRITICAL,
    "PostgreSQL refuses connections",
    "{why}",
    "{how}",
)
POSTGRES_FULL = Case(
    "postgres-connections-full",
    WARNING,
    "PostgreSQL has {count} of {most} connections in use",
    "more app instances or pools than it allows for",
    "raise postgres_settings.max_connections or lower the app's pool, then ops provision --tags "
    "postgres,agent_app",
)
BACKUP_OLD = Case(
    "backup-old",
    WARNING,
    "the last good backup is {age} old",
    "{why}",
    "ops backup run; it fails? journalctl -u 'rackhand-backup@*' on {host}",
)
BACKUP_UNPROVEN = Case(
    "backup-unproven",
    CRITICAL,
    "the newest backup failed its proof",
    "it could not be restored and read, or files of the repository are damaged",
    "journalctl -u rackhand-backup-verify on {host}; ops backup run --full, then ops backup verify",
)
CASES = (REDIS_DOWN, REDIS_SILENT, REDIS_REFUSES, POSTGRES_DOWN, POSTGRES_REFUSES, POSTGRES_FULL,
         BACKUP_OLD, BACKUP_UNPROVEN)  # fmt: skip
BUSY = 0.9
BACKUP_HOURS = 26.0
"""A daily backup, and two hours for it; as the alert BackupOld."""
CAUSES = (
    (r"Can't open the append-only file|Bad file format reading the append only",
     "its append-only file is damaged: redis-check-aof --fix mends it"),
    (r"No space left on device", "the disk is full (disk-filling)"),
    (r"[Aa]ddress already in use", "another process has its port: ss -ltnp names it"),
    (r"[Cc]an't open .*\.(?:key|crt|pem)|Failed to load certificate|could not load .*certificate",
     "its certificate or key cannot be read"),
    (r"could not (?:resize|create) shared memory|Cannot allocate memory|[Oo]ut of memory",
     "the host is short of memory"),
    (r"invalid (?:value|line)|FATAL CONFIG FILE ERROR|unrecognized configuration parameter|"
     r"configuration file .* contains errors|Bad directive", "its configuration is wrong"),
    (r"data directory .* (?:has wrong ownership|invalid permissions)|Permission denied",
     "files of it belong to somebody else"),
    (r"lock file \"postmaster\.pid\" already exists", "a postmaster.pid of another run is left"),
    (r"PANIC:|could not locate a valid checkpoint|invalid page in block",
     "its files are damaged: restore the backup"),
    (r"was initialized by PostgreSQL version|not compatible with this version",
     "its files are of another version"),
    (r"oom-kill|OOM killer|status=9/KILL", "it was killed, as a rule for want of memory"),
)  # fmt: skip
ANSWERS = (
    (r"too many clients|remaining connection slots", "all connections are in use",
     "systemctl restart agent_app@*; raise postgres_settings.max_connections"),
    (r"is starting up|in recovery mode|not yet accepting", "it starts, or recovers after a crash",
     "wait: tail -f /var/log/postgresql/*.log tells how far it is"),
    (r"No space left on device", "the disk is full", "free the disk: ops doctor {host} says how"),
    (r"no pg_hba.conf entry|authentication failed", "its pg_hba.conf was changed by hand",
     "ops provision --tags postgres --limit {host}"),
)  # fmt: skip


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what ails the data layer; only where it belongs."""
    yield from _backup(host, evidence.get("backup") or {})
    if "data" not in evidence.get("groups", ()):
        return
    units = {unit["unit"]: unit for unit in evidence.get("units", [])}
    for redis in evidence.get("redis") or []:
        yield from _redis(host, redis, units)
    postgres = evidence.get("postgres")
    if postgres:
        yield from _postgres(host, postgres, units)


def cause_of(lines: list[str], otherwise: str) -> str:
    """Return the cause that a log names."""
    text = "\n".join(lines)
    return next((cause for pattern, cause in CAUSES if re.search(pattern, text)), otherwise)


def _state(unit: Mapping[str, Any] | None) -> tuple[str, list[str]]:
    """A unit's state in words, and its log; no unit at all is one that is stopped."""
    if unit is None:
        return "stopped", []
    return f"{unit['active']} ({unit['result']})", [*unit["log_before"], *unit["log"]]


def _redis(
    host: str, redis: Mapping[str, Any], units: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    name, unit, said = redis["name"], redis["unit"], redis["said"]
    state, log = _state(units.get(unit))
    known = {"name": name, "unit": unit, "port": redis["port"]}
    if units.get(unit, {}).get("active") != "active":
        why = cause_of(log, "somebody stopped it, or it failed")
        yield REDIS_DOWN.found(host, unit, *log[-4:], said, state=state, why=why, **known)
    elif said.startswith("no answer") or not said:
        why = cause_of(log, "it is busy, or listens at another address")
        yield REDIS_SILENT.found(host, unit, said, *log[-3:], why=why, **known)
    elif not said.startswith(("+PONG", "-NOAUTH")):
        why = {"-LOADING": "it still reads its file after a start", "-MISCONF": "it cannot write "
               "its file: the disk", "-OOM": "its memory is full and nothing may be evicted"}.get(
            said.split()[0], said)  # fmt: skip
        yield REDIS_REFUSES.found(host, unit, said, *log[-3:], why=why, **known)


def _backup(host: str, backup: Mapping[str, Any]) -> Iterator[Finding]:
    """Backups as the host's own pages of metrics tell of them."""
    last = backup.get("rackhand_backup_last_success_timestamp_seconds")
    if last is not None and backup["now"] - last > BACKUP_HOURS * 3600:
        hours = (backup["now"] - last) / 3600
        failed = backup.get("rackhand_backup_last_run_success") == 0
        why = "the last attempt failed" if failed else "its timer did not run, or never could"
        age = f"{hours:.0f} hours" if last else "infinitely"
        yield BACKUP_OLD.found(host, "backup", f"last success: {last:.0f}", age=age, why=why)
    if backup.get("rackhand_backup_verify_success") == 0:
        when = backup.get("rackhand_backup_verify_timestamp_seconds", 0)
        yield BACKUP_UNPROVEN.found(host, "backup", f"tried at {when:.0f}")


def _postgres(
    host: str, postgres: Mapping[str, Any], units: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    unit, said = postgres["unit"], postgres["said"]
    state, log = _state(units.get(unit))
    lines = [line for line in postgres["log"] if re.search(r"FATAL|PANIC|ERROR|LOG:.*could", line)]
    if units.get(unit, {}).get("active") != "active":
        why = cause_of([*log, *postgres["log"]], "somebody stopped it, or it failed")
        evidence = [f"{unit}: {state}", *log[-2:], *lines[-2:], said]
        yield POSTGRES_DOWN.found(host, unit, *evidence, state=state, why=why, unit=unit)
    elif said:
        known = next((a for a in ANSWERS if re.search(a[0], said)), None)
        why, how = known[1:] if known else ("it says why", "tail /var/log/postgresql/*.log")
        how = how.replace("{host}", host)
        yield POSTGRES_REFUSES.found(host, unit, said, *lines[-3:], why=why, how=how)
    elif postgres["most"] and postgres["connections"] > BUSY * postgres["most"]:
        count, most = postgres["connections"], postgres["most"]
        yield POSTGRES_FULL.found(host, unit, f"{count} of {most}", count=count, most=most)
