"""Limits of this machine's kernel that all labs share, told before hosts fail to boot by them."""

from __future__ import annotations

from pathlib import Path

from ops.lab import network
from ops.lab.fleet_plan import LabPlan

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
#: Instances that root holds on a booted host with the stack: systemd 4 to 5 and logind 1, seen on
#: Debian 12 and 13. All labs count together, as root is one user for all of them.
INOTIFY_OF_A_HOST = 6
INOTIFY_OF_THIS_MACHINE = 16


def inotify_obstacle(plan: LabPlan) -> str | None:
    """Say whether the hosts of all labs may use up root's inotify instances.

    Beyond the limit systemd cannot watch its files, and a host hangs on its way up.

    Returns:
        What is short and the cure, or None.
    """
    hosts = sum(len(lab.hosts) for lab in (plan, *network.other_labs(plan.name)))
    wanted = INOTIFY_OF_THIS_MACHINE + INOTIFY_OF_A_HOST * hosts
    limit = int(INOTIFY_INSTANCES.read_text())
    if wanted <= limit:
        return None
    return (
        f"fs.inotify.max_user_instances is {limit}, and the {hosts} hosts of this "
        f"machine's labs want some {wanted}, so that the last may hang at boot; cure: "
        f"sysctl -w fs.inotify.max_user_instances={max(1024, 2 * wanted)}"
    )
