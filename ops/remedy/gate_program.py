"""The gate on a host: what the remediator's key may run there, and nothing else.

sshd starts it as the key's forced command, through sudo, with what was asked for in
SSH_ORIGINAL_COMMAND. It passes a command that has one of the shapes below, or one of ops' own
programs, told by their SHA-256, with verbs that remediation needs. Standard library of the host's
own Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
import syslog
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SETTINGS = Path("/etc/rackhand/remediator_gate.json")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPERATIONS = "/var/lib/rackhand/operations"
ENGINE = r"engine@[a-z0-9][a-z0-9-]*-(?:blue|green)\.service"
WATCHER = (
    r"(?:gpu_exporter|nvidia-persistenced|nvidia-fabricmanager|(?:nvidia-)?dcgm[a-z-]*)\.service"
)
UNITS = rf"(?:{ENGINE}|{WATCHER})(?: (?:{ENGINE}|{WATCHER}))*"
LIST_PATTERNS = r"(?: '?[a-z*-]+(?:_[a-z]+)?\.service'?)+"
SHAPES = tuple(
    re.compile(shape)
    for shape in (
        r"true",
        r"mkdir -p /var/lib/rackhand && printf '%s\\n' 'operation [a-z0-9-]+'"
        r" > /var/lib/rackhand/drained",
        r"rm -f /var/lib/rackhand/drained",
        r"cat /var/lib/rackhand/drained 2>/dev/null \|\| true",
        r"cat /etc/ansible/facts\.d/engine\.fact 2>/dev/null \|\| echo '\{\}'",
        r"cat /proc/sys/kernel/random/boot_id",
        r"timeout \d{1,6} systemctl is-system-running --wait >/dev/null \|\| true",
        r'\[ "\$\(systemctl is-system-running\)" = stopping \] \|\| '
        r"systemd-run --quiet --collect --on-active=1 systemctl reboot",
        r"systemctl list-units --all --plain --no-legend --full --type=service",
        rf"systemctl list-unit-files --state=enabled --plain --no-legend{LIST_PATTERNS}",
        rf"systemctl stop {UNITS}",
        rf"systemctl start --no-block {UNITS}",
        rf"systemctl stop {ENGINE}; systemctl reset-failed {ENGINE} 2>/dev/null \|\| true",
        rf"systemctl reset-failed {ENGINE} 2>/dev/null; systemctl start --no-block {ENGINE}",
        rf"journalctl --no-pager -o cat -n \d{{1,3}}(?: -u {ENGINE})+",
        r"journalctl --no-pager -o cat -n \d{1,3} -u agent_app@\d{1,5}\.service",
        r"timeout \d{1,6} nvidia-smi --gpu-reset(?: -i \d{1,3})?",
        r"timeout \d{1,6} nvidia-smi --query-gpu=index --format=csv,noheader",
    )
)
"""Whole commands for the shell. None lets a character of its own through that a shell reads."""


def verbs(*allowed: str) -> Callable[[Sequence[str]], bool]:
    """A program's words: one of these verbs, and JSON for it."""
    return lambda words: len(words) in (1, 2) and words[0] in allowed


def _keeper(words: Sequence[str]) -> bool:
    return words[:1] == [OPERATIONS] and words[1:2] in (["list"], ["read"], ["hold"])


def _numbers(words: Sequence[str]) -> bool:
    return all(word.isdecimal() for word in words)


def _probe(words: Sequence[str]) -> bool:
    models = words[2::2]
    return _numbers([*words[:1], *words[1::2]]) and all(
        re.fullmatch(r"[a-z0-9][a-z0-9-]*", model) for model in models
    )


PROGRAMS: Mapping[str, Callable[[Sequence[str]], bool]] = {
    "keeper": _keeper,
    "look": lambda words: len(words) == 1,
    "switch": verbs("survey", "set_held", "set_out"),
    "instance": verbs("survey", "connections", "look_at"),
    "count": _numbers,
    "probe": _probe,
}
"""By the name that SETTINGS give a program's SHA-256: which words it may have."""


def _only_looks(name: str, words: Sequence[str]) -> bool:
    return name == "look" or (name == "keeper" and list(words[1:2]) != ["hold"])


def judge(command: str, programs: Mapping[str, str], *, act: bool = True) -> tuple[list[str], str]:
    """Return what to run for a command, and its name for the log; nothing where it is refused.

    Args:
        command: As it was asked for.
        programs: Name of a program by the SHA-256 of its text.
        act: Whether more than looking is allowed.
    """
    if act and any(shape.fullmatch(command) for shape in SHAPES):
        return ["/bin/sh", "-c", command], command
    try:
        words = shlex.split(command)
    except ValueError:
        return [], ""
    if words[:2] != ["python3", "-c"] or len(words) < 3 or shlex.join(words) != _one_line(command):
        return [], ""
    name = programs.get(hashlib.sha256(words[2].encode()).hexdigest(), "")
    if name in PROGRAMS and PROGRAMS[name](words[3:]) and (act or _only_looks(name, words[3:])):
        return ["/usr/bin/python3", "-c", *words[2:]], " ".join([name, *words[3:5]])[:200]
    return [], ""


def _one_line(command: str) -> str:
    """The command as `shlex.join` writes it: whatever a shell would read otherwise differs."""
    return command.rstrip(" ")


def main() -> None:
    """Run what was asked for, if it may be."""
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    syslog.openlog("remediator_gate", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    told = json.loads(SETTINGS.read_text(encoding="utf-8"))
    words, name = judge(command, told["programs"], act=told["act"])
    if not words:
        syslog.syslog(syslog.LOG_WARNING, f"refused: {command[:500]!r}")
        sys.exit("remediator_gate: this key may not run that; provision again after an upgrade")
    syslog.syslog(syslog.LOG_INFO, f"runs: {name}")
    os.execve(words[0], words, {"PATH": PATH, "LC_ALL": "C.UTF-8"})  # noqa: S606


if __name__ == "__main__":
    main()
