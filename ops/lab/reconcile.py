"""Bring a lab to its wanted state, whatever an earlier command left behind.

`up` and `down` look at what really exists, by names that follow from the plan, so a command that
was killed at any instant is healed by the next one. Order matters: a plan is written before the
first thing it names is made, and removed after the last one is gone; a host's SSH identity is made
before the host and removed after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ops.errors import InputError, OpsError
from ops.lab import (
    environment,
    inventory,
    kernel_limits,
    network,
    power,
    snapshots,
    wheelhouse,
)
from ops.lab.cgroup import Group
from ops.lab.commands import require_lab_tools
from ops.lab.fleet_plan import OUTSIDE, LabPlan, load_plan, require_plan
from ops.lab.host import create_host, discard_tree, ensure_keys, forget_host, remove_tree
from ops.lab.locks import locked
from ops.lab.machine import layer
from ops.lab.mirror import build as mirror
from ops.lab.mirror import server
from ops.lab.paths import LabPaths

DEFAULT_IMAGE = "bookworm"
Say = Callable[[str], None]


@dataclass(frozen=True)
class HostStatus:
    """What is true of a host now."""

    name: str
    address: str
    image: str
    supervised: bool
    answers: bool
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Foundation:
    """What hosts stand on: images, and for simulated hardware a layer and the mirror."""

    plan: LabPlan
    mirror: Path | None
    say: Say

    def image(self, host: str) -> str:
        """Folders that a host's own files cover, joined by colons."""
        image = self.plan.image_of(host)
        folders = [image.folder]
        if self.mirror and self.plan.is_simulated(host):
            folders.insert(0, layer.ensure(image, self.mirror, self.say))
        return ":".join(map(str, folders))

    def binds(self, host: str) -> dict[str, str]:
        """Folders of this machine that only this host sees."""
        if self.mirror is None or host != OUTSIDE:
            return {}
        return server.binds(self.plan.paths, self.mirror)


@contextmanager
def existing(name: str) -> Iterator[LabPlan]:
    """Hold a lab's lock and give its plan.

    Raises:
        InputError: There is no such lab.
        MissingToolError: This machine cannot run a lab, or the caller is not root.
    """
    require_lab_tools()
    with locked(LabPaths(name).lock):
        yield require_plan(name)


def up(
    name: str, size: int | None, image_name: str | None, say: Say, gpus: str | None = None
) -> LabPlan:
    """Make a lab, or bring an existing one to what is wanted.

    Args:
        name: The lab's name.
        size: Number of hosts, or None for one (a new lab) or as many as there are.
        image_name: Image of its hosts, or None for the default or the one it has.
        say: Told what goes on, for a person who waits.
        gpus: GPUs of each host of group gpu (`H100:2`), or None for none or the ones it has.

    Returns:
        The plan that is now true.

    Raises:
        OpsError: Something could not be made; it says what and how to go on.
    """
    with locked(LabPaths(name).lock):
        plan = _wanted(name, size, image_name, gpus)
        for image in {plan.image_of(host) for host in plan.hosts}:
            image.ensure(say)
        shared = {
            environment.HOME: str(environment.ensure(say)),
            wheelhouse.HOME: str(wheelhouse.ensure(plan.image, say)),
        }
        foundation = Foundation(plan, mirror.ensure(say) if plan.gpus else None, say)
        ensure_keys(plan)
        network.ensure_network(plan)
        for host in _surplus(plan):
            say(f"removing {host}")
            _remove_host(plan, host)
        if obstacle := kernel_limits.inotify_obstacle(plan):
            say(f"warning: {obstacle}")
        say(f"booting {', '.join(plan.hosts)}")
        for host in plan.hosts:
            snapshots.finish(plan, host)
            binds = shared | foundation.binds(host)
            create_host(plan, host, binds, foundation.image(host))
            if power.sees_other_folders(plan, host, binds):
                say(f"rebooting {host}, for which new wheels or a new environment lie ready")
                power.shut_down(plan, host)
            power.start(plan, host)
        _wait(plan, plan.hosts)
        say("writing the inventory")
        inventory.write(plan, say)
        if obstacle := network.forwarding_obstacle(plan):
            say(f"warning: {obstacle}")
        return plan


def down(name: str, say: Say) -> bool:
    """Take a lab away: processes, network, files, inventory, and its plan last.

    Returns:
        Whether there was anything to take away.
    """
    from ops.chaos.leave import leave  # faults are of labs that exist: they import this package

    paths = LabPaths(name)
    with locked(paths.lock):
        plan = load_plan(name)
        if plan is None:
            Group(name).remove()
            found = paths.root.exists()
            remove_tree(paths.root)
            return found
        say("ending its hosts")
        leave(plan)
        Group(name).remove()
        network.remove_network(plan)
        say("removing its files")
        discard_tree(paths.inventory)
        discard_tree(paths.hosts)  # before their SSH identities, which `up` makes anew if missing
        for child in [path for path in paths.root.iterdir() if path.is_dir()]:
            discard_tree(child)
        paths.wanted.unlink()
        remove_tree(paths.root)
        return True


def reset(plan: LabPlan, hosts: list[str]) -> None:
    """Give hosts a fresh upper layer and boot them; their snapshots and SSH identities stay."""
    for host in hosts:
        power.stop_at_once(plan, host)
        snapshots.empty_upper(plan, host)
        snapshots.finish(plan, host)
        power.start(plan, host)
    _wait(plan, hosts)


def status(plan: LabPlan) -> list[HostStatus]:
    """What is true of each host now."""
    groups = plan.groups()
    return [
        HostStatus(
            name=host,
            address=plan.address(host),
            image=plan.image_of(host).name,
            supervised=power.is_supervised(plan.paths.host(host)),
            answers=power.answers(plan, host),
            groups=tuple(group for group, members in groups.items() if host in members),
        )
        for host in plan.hosts
    ]


def check_hosts(plan: LabPlan, hosts: list[str]) -> None:
    """Refuse names that are no hosts of the lab.

    Raises:
        InputError: The first such name, with those there are.
    """
    for host in hosts:
        if host not in plan.hosts:
            raise InputError(
                f"The lab {plan.name} has no host {host!r}",
                cure=f"use one of {', '.join(plan.hosts)}",
            )


def _wanted(name: str, size: int | None, image_name: str | None, gpus: str | None) -> LabPlan:
    plan = load_plan(name)
    if plan is None:
        LabPlan(name, 0, image_name or DEFAULT_IMAGE, size or 1, gpus or "")  # refuses bad words
        plan = replace(network.allot(name, image_name or DEFAULT_IMAGE, size or 1), gpus=gpus or "")
        plan.save()
        return plan
    if gpus not in (None, plan.gpus):
        raise InputError(
            f"The hosts of lab {name} have {plan.gpus or 'no GPUs'}, and keep them",
            cure=f"ops lab down --name {name}, or give the new lab another --name",
        )
    if image_name not in (None, plan.image_name):
        raise InputError(
            f"The lab {name} runs {plan.image_name}, and a running host keeps its image",
            cure=f"ops lab down --name {name}, or give the new lab another --name",
        )
    wanted = replace(plan, size=size or plan.size)
    if wanted != plan:
        wanted.save()
    return wanted


def _surplus(plan: LabPlan) -> list[str]:
    folders = [path.name for path in plan.paths.hosts.glob("*") if path.is_dir()]
    found = {*folders, *power.hosts_with_processes(plan.name)}
    return sorted(found - set(plan.hosts))


def _remove_host(plan: LabPlan, host: str) -> None:
    Group(f"{plan.name}/{host}").remove()
    forget_host(plan.paths.host(host))


def _wait(plan: LabPlan, hosts: list[str]) -> None:
    with ThreadPoolExecutor(len(hosts)) as pool:
        problems = list(pool.map(lambda host: _problem(plan, host), hosts))
    for problem in problems:
        if problem is not None:
            raise problem


def _problem(plan: LabPlan, host: str) -> OpsError | None:
    try:
        power.wait_until_up(plan, host)
    except OpsError as problem:
        return problem
    return None


def labs() -> list[str]:
    """Names of the labs of this machine."""
    found: list[Path] = sorted(LabPaths("").root.glob("*/lab.json"))
    return [path.parent.name for path in found]
