"""The agent app: do its instances run, and what stands in the way of their readiness?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ops.doctor.finding import CRITICAL, INFO, WARNING, Case, Finding

DOWN = Case(
    "app-down",
    CRITICAL,
    "{unit} does not run: {state}",
    "{why}",
    "{how}",
)
RESTARTS = Case(
    "app-restarts",
    WARNING,
    "{unit} was started again {restarts} times",
    "{why}",
    "journalctl -b -u {unit}",
)
SILENT = Case(
    "app-does-not-answer",
    CRITICAL,
    "{unit} runs and does not answer",
    "its event loop hangs, or it listens at another address",
    "journalctl -b -u {unit}; ops restart app --limit {host}",
)
NO_ENGINE = Case(
    "app-cannot-reach-engine",
    CRITICAL,
    "the app at port {port} cannot reach an engine",
    "the engines are down, or their proxy (port 8000 on) is not to be reached from here",
    "ops doctor on the gpu hosts names the engine's cause; all well there? systemctl restart nginx "
    "on them, and look at the firewall",
)
NO_DATABASE = Case(
    "app-cannot-reach-database",
    CRITICAL,
    "the app at port {port} cannot use PostgreSQL",
    "it is down or refuses: {why}",
    "ops doctor on the data host names its cause; wrong password? ops provision --tags "
    "postgres,agent_app",
)
NO_REDIS = Case(
    "app-cannot-reach-redis",
    CRITICAL,
    "the app at port {port} cannot use Redis",
    "it is down or refuses: {why}",
    "ops doctor on the data host names its cause; wrong password? ops provision --tags "
    "redis,agent_app",
)
NOT_READY = Case(
    "app-not-ready",
    CRITICAL,
    "the app at port {port} is not ready: {what}",
    "{why}",
    "journalctl -b -u {unit}",
)
DEGRADED = Case(
    "app-degraded",
    INFO,
    "the app at port {port} works without {what}",
    "{why}",
    "see agent_app/README.md for {what}; journalctl -b -u {unit}",
)
MIGRATION = Case(
    "app-migration-failed",
    CRITICAL,
    "the database's schema was not brought up to the app's",
    "{why}",
    "journalctl -b -u {unit}; then systemctl restart {unit}",
)
CASES = (DOWN, RESTARTS, SILENT, NO_ENGINE, NO_DATABASE, NO_REDIS, NOT_READY, DEGRADED, MIGRATION)
PROVISION = "ops provision --tags agent_app --limit {host}"
CAUSES = (
    (r"[Aa]ddress already in use", "another process has its port: ss -ltnp names it",
     "end that process, then systemctl restart {unit}"),
    (r"Failed to set up credentials|status=243/CREDENTIALS", "a credential's file is missing",
     PROVISION),
    (r"status=203/EXEC|No such file or directory.*/opt/agent_app", "its release is not there",
     PROVISION),
    (r"password authentication failed|NOAUTH|WRONGPASS|invalid username-password",
     "a password is not the one that the database has", "ops provision --tags "
     "postgres,redis,agent_app"),
    (r"connection (?:to server .*failed|refused)|Connection refused|could not translate host name",
     "PostgreSQL or Redis cannot be reached", "ops doctor on the data host"),
    (r"No space left on device", "the disk is full", "ops doctor {host} names it (disk-filling)"),
    (r"oom-kill|OOM killer", "it needed more memory than agent_app_memory_max",
     "raise agent_app_memory_max, then " + PROVISION),
    (r"config\.yml.*Cure: |config\.yml: ", "its configuration is refused", PROVISION),
    (r"Failed with result 'timeout'", "it did not become ready in time",
     "journalctl -b -u {unit}; ops doctor on the data host"),
)  # fmt: skip
KINDS = (("engine", NO_ENGINE), ("database", NO_DATABASE), ("redis", NO_REDIS))


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what ails the app's instances."""
    if "agent" not in evidence.get("groups", ()):
        return
    units = {unit["unit"]: unit for unit in evidence.get("units", [])}
    for instance in evidence.get("app") or []:
        yield from _instance(host, instance, units.get(instance["unit"]))
    for name, unit in units.items():
        if name.startswith("agent_app_") and unit["active"] == "failed":
            why = _cause(unit["log"])[0]
            case = MIGRATION if "migrate" in name else DOWN
            yield case.found(host, name, *unit["log"][-4:], unit=name, why=why, state="failed",
                             how=f"journalctl -b -u {name}")  # fmt: skip


def _cause(lines: list[str]) -> tuple[str, str]:
    """The cause and cure that a log names."""
    text = "\n".join(lines)
    for pattern, why, how in CAUSES:
        if re.search(pattern, text):
            return why, how
    return "its last log lines say why", "journalctl -b -u {unit}"


def _instance(
    host: str, instance: Mapping[str, Any], unit: Mapping[str, Any] | None
) -> Iterator[Finding]:
    name, port = instance["unit"], instance["port"]
    log = [*unit["log_before"], *unit["log"]] if unit else []
    if unit is None or unit["active"] != "active":
        state = f"{unit['active']} ({unit['result']})" if unit else "stopped"
        why, how = _cause(log) if log else ("somebody stopped it", "systemctl start {unit}")
        how = how.replace("{unit}", name).replace("{host}", host)
        line = f"{name}: {state}"
        yield DOWN.found(host, name, line, *log[-4:], unit=name, state=state, why=why, how=how)
        return
    for what, why in instance["not_ready"].items():
        case = next((case for word, case in KINDS if word in what.lower()), NOT_READY)
        line = f"/ready: {what}: {why}"
        yield case.found(host, name, line, port=port, what=what, why=why, unit=name)
    for what, why in instance["degraded"].items():
        line = f"/ready: degraded: {what}: {why}"
        yield DEGRADED.found(host, name, line, port=port, what=what, why=why, unit=name)
    if instance["status"] <= 0 or (instance["status"] != 200 and not instance["not_ready"]):
        line = f"/ready: {instance['status'] or 'no answer'} {instance['said']}"
        yield SILENT.found(host, name, line, *log[-3:], unit=name)
    elif unit["restarts"] and any("Scheduled restart job" in line for line in unit["log_before"]):
        why = _cause(log)[0]
        yield RESTARTS.found(host, name, *log[-3:], unit=name, restarts=unit["restarts"], why=why)
