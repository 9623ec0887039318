"""Where faults may be: the labs of this machine, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

from ops.errors import InputError
from ops.fleet import load
from ops.fleet.model import Fleet
from ops.lab.commands import require_lab_tools, run
from ops.lab.fleet_plan import LabPlan, require_plan
from ops.lab.inventory import HEADER
from ops.lab.reconcile import labs

CURE = "ops lab up, then -i with the inventory that it wrote; never production"


def require_lab(inventory: Path) -> LabPlan:
    """The lab that an inventory describes.

    Its hosts, their addresses and their SSH key must be those of a lab of this machine, whose
    bridge is up here: an inventory that merely looks like one is refused.

    Raises:
        InputError: It is anything else.
        MissingToolError: This machine cannot run a lab.
    """
    written = inventory / "hosts.yml"
    if not written.is_file() or not written.read_text().startswith(HEADER.splitlines()[0]):
        raise InputError(
            "Faults are for the lab only, and `ops lab` did not write this inventory",
            place=str(inventory),
            cure=CURE,
        )
    require_lab_tools()
    fleet = load(inventory)
    for name in labs():
        plan = require_plan(name)
        if is_of(plan, fleet):
            if plan.gateway not in _addresses(plan.bridge):
                raise InputError(
                    f"The lab {name} is not up on this machine",
                    place=f"no address {plan.gateway} on {plan.bridge}",
                    cure=f"ops lab up --name {name}",
                )
            return plan
    raise InputError(
        "Faults are for the lab only, and these hosts are of no lab of this machine",
        place=str(inventory),
        cure=CURE,
    )


def is_of(plan: LabPlan, fleet: Fleet) -> bool:
    """Whether a fleet's hosts are a lab's: all of them, their addresses, ports and SSH key."""
    wanted = {node: plan.address(node) for node in plan.nodes}
    return {host.name: host.address for host in fleet.hosts} == wanted and all(
        host.port == 22 and Path(host.key_file) == plan.paths.private_key for host in fleet.hosts
    )


def _addresses(link: str) -> list[str]:
    told = run(["ip", "-json", "address", "show", "dev", link], check=False).stdout
    found = json.loads(told or "[]")
    return [str(entry.get("local")) for each in found for entry in each.get("addr_info", [])]
