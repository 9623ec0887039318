"""Gathers all evidence of this machine at once, part by part, and prints it as a line of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from time import monotonic
from typing import Any

from ops.doctor.evidence import engines, gpu, machine, services, units
from ops.doctor.evidence.command import first, read
from ops.live import look_program

PATIENCE_SECONDS = 40.0
"""For all parts together; one that hangs is a complaint."""


def unit_of(pid: int) -> str:
    """Return a process's systemd unit by its control group; "" for none."""
    path = read(f"/proc/{pid}/cgroup")
    return first(r"/([^/\n]+\.(?:service|scope))(?:/[^\n]*)?$", path)


def gather(parts: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Return what each part tells; a sick one hides no other."""
    found: dict[str, Any] = {}
    complaints: list[str] = []
    pool = ThreadPoolExecutor(max_workers=max(1, len(parts)))
    asked: dict[str, Future[Any]] = {name: pool.submit(part) for name, part in parts.items()}
    end = monotonic() + PATIENCE_SECONDS
    for name, future in asked.items():
        try:
            found[name] = future.result(timeout=max(0.1, end - monotonic()))
        except Late:
            complaints.append(f"{name}: no answer in {PATIENCE_SECONDS:.0f} s")
        except Exception as error:  # whatever it is, the other parts must not be lost
            complaints.append(f"{name}: {type(error).__name__}: {error}")
    pool.shutdown(wait=False, cancel_futures=True)
    return {**found, "complaints": complaints}


def local() -> dict[str, Any]:
    """Return what can be told of any machine: no inventory, no systemd, no root needed."""
    return gather({"machine": machine.gather, "gpu": lambda: gpu.gather(unit_of)})


def whole(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of a host of a fleet.

    Args:
        wanted: `address` (where the app listens), `domain`, `names` (to resolve here) and `keeper`
            (whether operations are kept here).
    """
    return gather(
        {
            "machine": machine.gather,
            "gpu": lambda: gpu.gather(unit_of),
            "units": units.gather,
            "ports": units.listeners,
            "engines": engines.gather,
            "redis": services.redis,
            "postgres": services.postgres,
            "backup": services.backup,
            "nginx": services.nginx,
            "certificate": lambda: services.certificate(wanted["domain"]),
            "app": lambda: services.app(wanted["address"]),
            "names": lambda: services.names(wanted["names"]),
            "traffic": services.operation,
            "facts": services.facts,
            "operation": look_program.operation if wanted["keeper"] else lambda: None,
        }
    )


def main(wanted: Mapping[str, Any]) -> None:
    """Print it and leave at once: a part that hangs must not keep us."""
    print(json.dumps(whole(wanted)), flush=True)
    sys.stdout.flush()
    os._exit(0)
