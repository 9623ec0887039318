"""What the hosts have and what apt would do on each, asked of the role itself; nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ops.driver.plan import HostMove, plan_moves
from ops.driver.state import DriverState, survey
from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet, Host
from ops.places import ROOT
from ops.playbook import Progress, run_playbook

PLAYBOOK = ROOT / "playbooks" / "driver.yml"
MODULE = "rackhand.host.nvidia_driver"


def survey_moves(
    fleet: Fleet,
    hosts: tuple[Host, ...],
    wanted: Callable[[DriverState], Mapping[str, Any]],
) -> list[HostMove]:
    """Ask every host what it has and what apt would do.

    Args:
        fleet: The whole fleet.
        hosts: Those to move, in this order.
        wanted: The role's variables for a host.

    Raises:
        InputError: No host has a GPU.
        OpsError: A host does not answer, or the role refuses; the message says why.
    """
    states = survey(fleet, hosts)
    for state in states:
        if state.problem:
            raise OpsError(state.problem, place=state.host, cure="ops driver status")
    states = [state for state in states if state.devices]
    if not states:
        raise InputError(
            "no host has an NVIDIA GPU on its PCI bus",
            place=str(fleet.inventory),
            cure="ops driver status",
        )
    variables = {state.host: wanted(state) for state in states}
    answers: dict[str, Mapping[str, Any]] = {}
    for members, same in _alike(variables):
        arguments = ["--check", "--limit", ",".join(members), "-e", json.dumps(dict(same))]
        _status, progress = run_playbook(
            PLAYBOOK, fleet.inventory, arguments=arguments, collect=MODULE
        )
        raise_failures(progress)
        answers |= progress.results
    return plan_moves(fleet, states, variables, answers)


def raise_failures(progress: Progress) -> None:
    """Raise the first failure of a run.

    Raises:
        OpsError: There is one.
    """
    for failure in progress.failures:
        raise OpsError(
            f"{failure.host}: {failure.message.rstrip('.')}",
            place=f"{failure.host}, {failure.role}: {failure.task}",
        )


def _alike(
    variables: Mapping[str, Mapping[str, Any]],
) -> list[tuple[list[str], Mapping[str, Any]]]:
    """Hosts with equal variables together: one run of Ansible asks them all."""
    groups: dict[str, list[str]] = {}
    for host, values in variables.items():
        groups.setdefault(json.dumps(dict(values), sort_keys=True), []).append(host)
    return [(members, variables[members[0]]) for members in groups.values()]
