"""What `ops lab down` takes away of a lab's faults on this machine."""

from __future__ import annotations

from ops.chaos import keeper, network
from ops.lab.fleet_plan import LabPlan


def leave(lab: LabPlan) -> None:
    """End the keeper and take the rules away; all else goes with the lab's hosts and folder."""
    keeper.remove(lab.name)
    network.remove(lab)
