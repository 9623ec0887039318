"""Keep and bring back a host's files. Each change is a rename; `finish` completes a broken one."""

from __future__ import annotations

import re

from ops.errors import InputError
from ops.lab import power
from ops.lab.commands import run
from ops.lab.fleet_plan import LabPlan
from ops.lab.host import make_upper, remove_tree

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def take(plan: LabPlan, host: str, name: str) -> None:
    """Stop a host in order, copy its files under a name, and start it again.

    Raises:
        InputError: The name cannot be a folder's.
    """
    _check(name)
    paths = plan.paths.host(host)
    power.shut_down(plan, host)
    finish(plan, host)
    partial = paths.snapshots / ".partial"
    run(["cp", "-a", "--reflink=auto", paths.upper, partial])
    remove_tree(paths.snapshots / name)
    partial.rename(paths.snapshots / name)
    power.start(plan, host)
    power.wait_until_up(plan, host)


def restore(plan: LabPlan, host: str, name: str) -> None:
    """Stop a host, give it the files of a snapshot, and start it.

    Raises:
        InputError: There is no such snapshot; the message lists those there are.
    """
    _check(name)
    paths = plan.paths.host(host)
    if not (paths.snapshots / name).is_dir():
        there = ", ".join(list_names(plan, host)) or "none"
        raise InputError(f"{host} has no snapshot {name!r}", cure=f"there are: {there}")
    power.stop_at_once(plan, host)
    finish(plan, host)
    partial = paths.snapshots / ".partial"
    run(["cp", "-a", "--reflink=auto", paths.snapshots / name, partial])
    empty_upper(plan, host)
    partial.rename(paths.upper)
    finish(plan, host)
    power.start(plan, host)
    power.wait_until_up(plan, host)


def list_names(plan: LabPlan, host: str) -> list[str]:
    """Names of a host's snapshots."""
    folder = plan.paths.host(host).snapshots
    return sorted(p.name for p in folder.glob("*") if not p.name.startswith("."))


def empty_upper(plan: LabPlan, host: str) -> None:
    """Take the files of a stopped host away; `finish` gives it fresh ones."""
    paths = plan.paths.host(host)
    remove_tree(paths.root / ".discarded")
    remove_tree(paths.work)  # belongs to the files that go
    if paths.upper.exists():
        paths.upper.rename(paths.root / ".discarded")


def finish(plan: LabPlan, host: str) -> None:
    """Leave a host that is not running whole: files of its own, and no half-made copy."""
    paths = plan.paths.host(host)
    if not paths.config.exists() or power.is_supervised(paths):
        return
    for leftover in (paths.root / ".discarded", paths.snapshots / ".partial"):
        remove_tree(leftover)
    paths.work.mkdir(exist_ok=True)
    if not paths.upper.exists():
        make_upper(plan, host)


def _check(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name for a snapshot",
            cure="use letters, digits, dots, hyphens and underscores",
        )
