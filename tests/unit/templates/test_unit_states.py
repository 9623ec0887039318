"""A unit that failed does not stay failed, whatever is wanted of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.rackhand.host.plugins.module_utils.unit_states import Units


class Module:
    """As much of an AnsibleModule as is asked: systemctl with one unit in a state."""

    check_mode = False

    def __init__(self, active: str) -> None:
        self.active = active
        self.ran: list[str] = []

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        if command[1] == "show":
            return 0, f"Id=x.service\nActiveState={self.active}\nUnitFileState=enabled\n", ""
        self.ran.append(" ".join(command[1:]))
        return 0, "", ""


@pytest.mark.parametrize(
    ("active", "wanted", "ran"),
    [
        ("failed", "started", ["reset-failed x.service", "start x.service"]),
        ("failed", "restarted", ["reset-failed x.service", "restart x.service"]),
        ("failed", "stopped", ["reset-failed x.service"]),
        ("failed", None, []),
        ("inactive", "started", ["start x.service"]),
        ("inactive", "stopped", []),
        ("active", "started", []),
    ],
)
def test_a_failed_unit_is_reset_first(active: str, wanted: str | None, ran: list[str]) -> None:
    module: Any = Module(active)
    Units(module).ensure([{"name": "x.service", "state": wanted}])
    assert module.ran == ran
