"""Asks hosts for their evidence: one SSH connection each, all at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from importlib.resources import files
from shlex import quote
from typing import Any

from ops.doctor.finding import HostReport, Report
from ops.doctor.judge import judge
from ops.errors import OpsError
from ops.fleet.model import Fleet, Host

MODULES = {
    "ops.doctor.evidence.command": ("ops.doctor.evidence", "command.py"),
    "ops.doctor.evidence.gpu_hardware": ("ops.doctor.evidence", "gpu_hardware.py"),
    "ops.doctor.evidence.gpu": ("ops.doctor.evidence", "gpu.py"),
    "ops.doctor.evidence.machine": ("ops.doctor.evidence", "machine.py"),
    "ops.doctor.evidence.units": ("ops.doctor.evidence", "units.py"),
    "ops.doctor.evidence.engines": ("ops.doctor.evidence", "engines.py"),
    "ops.doctor.evidence.services": ("ops.doctor.evidence", "services.py"),
    "ops.live.look_program": ("ops.live", "look_program.py"),
    "ops.doctor.evidence.program": ("ops.doctor.evidence", "program.py"),
}
"""What a host is sent, each after what it imports."""
LOADER = """
import json, sys, types
job = json.loads(sys.stdin.buffer.readline())
for name in job["modules"]:
    for end in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:end])
        sys.modules.setdefault(part, types.ModuleType(part))
        sys.modules[part].__path__ = []
for name, text in job["modules"].items():
    module = sys.modules[name]
    exec(compile(text, name, "exec"), module.__dict__)
    parent, _, own = name.rpartition(".")
    setattr(sys.modules[parent], own, module)
sys.modules["ops.doctor.evidence.program"].main(job["wanted"])
"""
HOST_SECONDS = 75.0
"""The connection 10 s, the program 40 s, and a slow line."""
MOST_AT_ONCE = 32

Ask = Callable[[Fleet, Host], Mapping[str, Any]]


def examine(fleet: Fleet, hosts: Sequence[Host], ask: Ask | None = None) -> Report:
    """Ask hosts and judge them; one that does not answer is a result, not an error.

    The keeper of operations is asked too: a host that is drained on purpose is not sick.

    Args:
        fleet: The fleet.
        hosts: Those of it that are to be examined.
        ask: Returns a host's evidence; default: over SSH.
    """
    began = time.monotonic()
    keepers = [host for host in fleet.group("data")[:1] if host not in hosts]
    asked = [*hosts, *keepers]
    told = gather(fleet, asked, ask or over_ssh)
    busy = any((one.evidence.get("operation") or {}).get("held") for one in told)
    reports = tuple(
        one.report(fleet, host, busy)
        for host, one in zip(asked, told, strict=True)
        if host not in keepers
    )
    return Report(reports, at=time.time(), seconds=time.monotonic() - began)


@dataclass(frozen=True)
class Told:
    """What a host told, and when it was asked by this machine's clock; or why it told nothing."""

    evidence: Mapping[str, Any] = field(default_factory=dict)
    before: float = 0.0
    after: float = 0.0
    problem: str = ""
    cure: str = ""

    def report(self, fleet: Fleet, host: Host, busy: bool) -> HostReport:
        """Return the host's report; `busy`: an operation is at work on the fleet."""
        if self.problem:
            return HostReport(host.name, problem=self.problem, cure=self.cure)
        beside = known(fleet, host, self.evidence, self.before, self.after)
        return judge(host.name, {**self.evidence, **beside, "fleet_busy": busy})


def gather(fleet: Fleet, hosts: Sequence[Host], ask: Ask) -> list[Told]:
    """Ask hosts at once, each for as long as HOST_SECONDS."""
    began = time.monotonic()
    pool = ThreadPoolExecutor(max_workers=MOST_AT_ONCE)
    asked = [pool.submit(one, fleet, host, ask) for host in hosts]
    told = []
    for host, future in zip(hosts, asked, strict=True):
        left = HOST_SECONDS - (time.monotonic() - began)
        try:
            told.append(future.result(timeout=max(0.1, left)))
        except Late:
            why = f"no answer within {HOST_SECONDS:.0f} s"
            told.append(Told(problem=why, cure=f"ssh {host.address}, and look what hangs there"))
    pool.shutdown(wait=False, cancel_futures=True)
    return told


def one(fleet: Fleet, host: Host, ask: Ask) -> Told:
    """Ask one host."""
    before = time.time()
    try:
        return Told(ask(fleet, host), before, time.time())
    except OpsError as error:
        return Told(problem=error.message, cure=error.cure)


def known(
    fleet: Fleet, host: Host, evidence: Mapping[str, Any], before: float, after: float
) -> dict[str, Any]:
    """Return what this machine knows beside a host's evidence: its clock and the inventory."""
    found: dict[str, Any] = {
        "groups": sorted(host.groups),
        "domain": fleet.domain,
        "inventory": {model.name: model.revision for model in host.models},
    }
    now = (evidence.get("machine") or {}).get("now")
    if now is not None and not before <= now <= after:
        found["clock_off_seconds"] = now - (before if now < before else after)
    return found


def over_ssh(fleet: Fleet, host: Host) -> Mapping[str, Any]:
    """Return a host's evidence.

    Raises:
        OpsError: It cannot be reached, or its Python cannot run our program.
    """
    from ops.remote import connect
    from ops.remote.stream import execute

    with connect(fleet, host) as connection:
        done = execute(
            connection, host, f"python3 -c {quote(LOADER)}", source=[job(fleet, host).encode()]
        )
    try:
        found: Mapping[str, Any] = json.loads(done.output)
        return found
    except ValueError as error:
        last = (done.complaint.strip().splitlines() or ["it said nothing"])[-1]
        raise OpsError(
            f"our program on {host.name} ended with status {done.status}: {last[:500]}",
            place=host.address,
            cure=f"ssh {host.address} python3 --version   (3.10 or later is needed)",
        ) from error


def job(fleet: Fleet, host: Host) -> str:
    """Return the line that LOADER reads: the program and what it has to know."""
    edge = "edge" in host.groups
    wanted = {
        "address": fleet.listen_address(host),
        "domain": fleet.domain,
        "names": [fleet.domain] if edge and fleet.domain else [],
        "keeper": host in fleet.group("data")[:1],
    }
    texts = {
        name: files(package).joinpath(file).read_text(encoding="utf-8")
        for name, (package, file) in MODULES.items()
    }
    return json.dumps({"modules": texts, "wanted": wanted}) + "\n"
