# Copyright: the Rackhand founders
"""Compare a list of systemd units with what is wanted, and close the gap."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROPERTIES = (
    "Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestampMonotonic"
)
RUNNING = {"active", "activating", "reloading"}
ENABLED = {"enabled", "enabled-runtime", "static", "alias", "indirect", "generated"}
STATES = {"started", "stopped", "restarted", "reloaded", None}
JOURNAL_LINES = 20
KEYS = {"name", "enabled", "state", "restart_after", "settle"}


def started_before(current: dict[str, str], paths: list[str]) -> bool:
    """Whether a unit's process is older than the last change of one of the paths.

    systemd tells the start on the monotonic clock (microseconds); it is carried over to the wall
    clock that file times are in.
    """
    monotonic = int(current.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    if not monotonic:
        return False
    started = time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - monotonic)
    return any(os.lstat(path).st_mtime > started for path in paths if os.path.lexists(path))


def unknown_keys(units: list[dict[str, Any]]) -> str:
    """Why a list of units is not one; empty if it is."""
    for unit in units:
        if set(unit) - KEYS or "name" not in unit or unit.get("state") not in STATES:
            return f"units: {unit} has other keys than {sorted(KEYS)}"
    return ""


class Units:
    """Compare wanted units with systemd's view and close the gap."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.actions: list[str] = []

    def show(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Properties per unit, from one call of systemctl."""
        _, out, _ = self.module.run_command(
            ["systemctl", "show", "--property", PROPERTIES, *names], check_rc=True
        )
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in out.strip().split("\n\n")
        ]
        return dict(zip(names, blocks, strict=False))

    def act(self, *command: str) -> None:
        """Run one systemctl verb, or only record it in check mode."""
        self.actions.append("systemctl " + " ".join(command))
        if self.module.check_mode:
            return
        code, out, err = self.module.run_command(["systemctl", *command])
        if code != 0:
            self.fail(command, (err or out).strip())

    def fail(self, command: tuple[str, ...], why: str) -> None:
        _, journal, _ = self.module.run_command(
            ["journalctl", "--no-pager", "-o", "cat", "-n", str(JOURNAL_LINES), "-u", command[-1]]
        )
        self.module.fail_json(
            msg=f"`systemctl {' '.join(command)}` failed: {why}\n"
            f"Last lines of its journal (`journalctl -u {command[-1]}`):\n{journal.strip()}",
            actions=self.actions,
        )

    def ensure(self, units: list[dict[str, Any]]) -> None:
        """Bring every unit to its state."""
        names = [unit["name"] for unit in units]
        current = self.show(names)
        if any(state.get("NeedDaemonReload") == "yes" for state in current.values()):
            self.act("daemon-reload")
            current = self.show(names) if not self.module.check_mode else current
        for unit in units:
            self.ensure_file_state(unit, current[unit["name"]])
        for unit in units:
            self.ensure_active_state(unit, current[unit["name"]])

    def ensure_file_state(self, unit: dict[str, Any], current: dict[str, str]) -> None:
        wanted, state = unit.get("enabled"), current.get("UnitFileState", "")
        if wanted is None:
            return
        if wanted and state.startswith("masked"):
            self.act("unmask", unit["name"])
            state = ""
        if wanted and state not in ENABLED:
            self.act("enable", unit["name"])
        elif not wanted and state in {"enabled", "enabled-runtime"}:
            self.act("disable", unit["name"])

    def ensure_active_state(self, unit: dict[str, Any], current: dict[str, str]) -> None:
        wanted, active = unit.get("state"), current.get("ActiveState")
        running = active in RUNNING
        outdated = running and started_before(current, unit.get("restart_after") or [])
        # A start limit would refuse it, and one that is to be stopped would stay failed; one that
        # starts again and again has used up its starts soon.
        if wanted and (active == "failed" or (outdated and active == "activating")):
            self.act("reset-failed", unit["name"])
        if wanted == "started" and not running:
            self.act("start", unit["name"])
        elif wanted == "started" and outdated:
            self.act("restart", unit["name"])
            if not self.module.check_mode:
                time.sleep(unit.get("settle") or 0)
        elif wanted == "stopped" and running:
            self.act("stop", unit["name"])
        elif wanted == "restarted":
            self.act("restart", unit["name"])
        elif wanted == "reloaded":
            self.act("reload-or-restart", unit["name"])
