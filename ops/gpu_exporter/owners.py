"""Whose a process is: its systemd unit, and the engine's slot behind that."""

from __future__ import annotations

import ctypes
import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

ENGINE = re.compile(r"engine@(?P<model>.+)-(?P<slot>blue|green)\.service")
KNOWN_UNITS = (
    "engine@*.service",
    "ray*.service",
    "gpu_exporter.service",
    "nvidia-*.service",
    "dcgm*.service",
)
"""Units that may hold GPU memory, as globs."""

KILL = 1 << 8  # SIGKILL's place in a mask of signals
Cause = Literal["", "unknown_unit", "dead_process"]


@dataclass(frozen=True)
class Owner:
    """Whose a process is.

    Attributes:
        process: Its name, as the kernel has it.
        unit: Its systemd unit; empty where it has none.
        model: The model of its engine.
        slot: The slot of its engine.
        cause: Why its memory counts as orphaned; empty where it does not.
    """

    process: str = ""
    unit: str = ""
    model: str = ""
    slot: str = ""
    cause: Cause = ""


class Owners:
    """Finds owners.

    Args:
        known: Globs of units that may hold GPU memory.
        procfs: Where /proc is.
        unit_of: Gives the unit of a process id, "" for none.
    """

    def __init__(
        self,
        known: Sequence[str] = KNOWN_UNITS,
        procfs: Path = Path("/proc"),
        unit_of: Callable[[int], str] | None = None,
    ) -> None:
        self._known = [re.compile(fnmatch.translate(pattern)) for pattern in known]
        self._procfs = procfs
        self._unit_of = unit_of or systemd_unit

    def of(self, pid: int) -> Owner:
        """The owner of a process."""
        try:
            status = (self._procfs / str(pid) / "status").read_text(errors="replace")
        except OSError:
            hidden = not (self._procfs / "1").exists()  # /proc is mounted with hidepid
            return Owner(cause="" if hidden else "dead_process")
        unit = self._unit_of(pid)
        engine = ENGINE.fullmatch(unit)
        known = any(pattern.match(unit) for pattern in self._known)
        return Owner(
            process=_value(status, "Name"),
            unit=unit,
            model=engine["model"] if engine else "",
            slot=engine["slot"] if engine else "",
            cause="dead_process" if is_dead(status) else "" if known else "unknown_unit",
        )


def is_dead(status: str) -> bool:
    """Whether a process has ended or is to end at once and cannot, waiting for a driver.

    Args:
        status: Its /proc/PID/status.
    """
    pending = int(_value(status, "SigPnd") or "0", 16) | int(_value(status, "ShdPnd") or "0", 16)
    return _value(status, "State")[:1] in ("Z", "X") or bool(pending & KILL)


def _value(status: str, key: str) -> str:
    found = re.search(rf"^{key}:\s*(.*)$", status, re.MULTILINE)
    return found[1] if found else ""


def systemd_unit(pid: int) -> str:
    """The unit of a process by its control group, as systemd itself reads that; "" for none."""
    libsystemd, libc = _libraries()
    unit = ctypes.c_void_p()
    if libsystemd.sd_pid_get_unit(ctypes.c_int(pid), ctypes.byref(unit)) < 0 or not unit:
        return ""
    name = ctypes.string_at(unit.value or 0).decode(errors="replace")
    libc.free(unit)
    return name


@cache
def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    return ctypes.CDLL("libsystemd.so.0"), ctypes.CDLL(None)
