"""Move drivers host by host: out of traffic, one transaction, a reboot if needed, proof, back.

A host is let in again only once the driver, its GPUs and its engines have answered. Run again after
any interruption: hosts that are done are passed over, one that was left drained is taken up.
"""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ops.driver.plan import HostMove, plan_moves
from ops.driver.state import DriverState, ask, survey
from ops.engine import traffic
from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet, Host
from ops.places import ROOT
from ops.playbook import Progress, run_playbook
from ops.playbook.view import View
from ops.remote import connect

PLAYBOOK = ROOT / "playbooks" / "driver.yml"
MODULE = "rackhand.host.nvidia_driver"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for requests under way, and for engines to answer."""

    drain: float = 300
    ready: float = 900


def plan(
    fleet: Fleet,
    hosts: tuple[Host, ...],
    wanted: Callable[[DriverState], Mapping[str, Any]],
) -> list[HostMove]:
    """Ask every host what it has and what apt would do; nothing changes.

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
        progress = _play(fleet, members, same, "--check")
        _raise_failures(progress)
        answers |= progress.results
    return plan_moves(fleet, states, variables, answers)


def carry_out(
    fleet: Fleet, moves: list[HostMove], patience: Patience, console: Console
) -> list[DriverState]:
    """Move one host after the other; the first failure ends it.

    Returns:
        The hosts as they are afterwards.

    Raises:
        OpsError: A host could not be moved; the message says what is true of it now.
    """
    done = []
    for number, move in enumerate(moves, 1):
        title = f"{move.host} ({number} of {len(moves)})"
        console.print(f"\n== {title}: {move.installed or 'no driver'} to {move.to}", style="bold")
        done.append(move_host(fleet, move, patience, console))
    return done


def move_host(fleet: Fleet, move: HostMove, patience: Patience, console: Console) -> DriverState:
    """Move one host, from traffic and back into it."""
    host = fleet.host(move.host)

    said = ""

    def say(words: str) -> None:
        nonlocal said
        if words != said:
            console.print(f"  {words}", markup=False, highlight=False)
        said = words

    with connect(fleet, host) as connection:
        left_over = traffic.drained(connection, host)
        if not move.needed and not left_over:
            say("has this driver, loaded: nothing to do")
            return ask(fleet, host)
        say("refusing new requests, waiting for those under way")
        reason = f"driver to {move.to}, by {getpass.getuser()}@{socket.gethostname()}"
        under_way = traffic.drain(connection, host, reason, patience.drain, say)
        if under_way:
            traffic.undrain(connection, host)
            raise OpsError(
                f"{under_way} request(s) of {host.name} did not end in {patience.drain:.0f} s; "
                "it serves on, nothing was changed",
                place=host.name,
                cure="run it again with a longer --drain-timeout",
            )
        slots = traffic.active_slots(connection, host)
        if slots and move.needed:
            say(f"stopping {', '.join(slot.unit for slot in slots)}")
            traffic.stop(connection, host, slots)
    if move.needed:
        _transact(fleet, host, move, slots, patience, console)
    state = prove(fleet, host, move.to)
    say(f"{state.loaded} is loaded, {len(state.gpus)} of {state.devices} GPUs answer")
    _let_in(fleet, host, slots, patience, say)
    say("serves again" if slots else "done")
    return ask(fleet, host)


def prove(fleet: Fleet, host: Host, version: str) -> DriverState:
    """Hold a host against what it was to become.

    Raises:
        OpsError: Another driver is loaded, or a GPU does not answer; the host stays drained.
    """
    state = ask(fleet, host)
    problems = list(state.findings)
    if not state.problem and state.loaded != version:
        problems.insert(0, f"{state.loaded or 'no driver'} is loaded, not {version}")
    if problems:
        raise OpsError(
            f"{host.name} is not as it should be and stays drained: {'; '.join(problems)}",
            place=host.name,
            cure=f"ops driver rollback -i {fleet.inventory} --limit {host.name}",
        )
    return state


def _transact(
    fleet: Fleet,
    host: Host,
    move: HostMove,
    slots: tuple[traffic.Slot, ...],
    patience: Patience,
    console: Console,
) -> None:
    """Run the role; a refusal that changed nothing puts the host back into traffic."""
    before = ask(fleet, host)
    with View(console) as view:
        progress = _play(fleet, [host.name], move.variables, observer=view)
    if not progress.failures:
        return
    after = ask(fleet, host)
    untouched = (before.record, before.installed_next, before.loaded) == (
        after.record,
        after.installed_next,
        after.loaded,
    )
    if untouched and not after.problem:
        _let_in(fleet, host, slots, patience, lambda _: None)
        _raise_failures(progress, "; nothing was changed, it serves on")
    _raise_failures(progress, "; it stays drained")


def _let_in(
    fleet: Fleet, host: Host, slots: tuple[traffic.Slot, ...], patience: Patience, say: Say
) -> None:
    with connect(fleet, host) as connection:
        traffic.start(connection, host, slots)
        traffic.wait_until_ready(connection, host, slots, patience.ready, say)
        traffic.undrain(connection, host)


def _play(
    fleet: Fleet,
    hosts: list[str],
    variables: Mapping[str, Any],
    *flags: str,
    observer: View | None = None,
) -> Progress:
    arguments = [*flags, "--limit", ",".join(hosts), "-e", json.dumps(dict(variables))]
    more = {"observer": observer} if observer else {}
    _status, progress = run_playbook(
        PLAYBOOK, fleet.inventory, arguments=arguments, collect=MODULE, **more
    )
    return progress


def _raise_failures(progress: Progress, outcome: str = "") -> None:
    for failure in progress.failures:
        raise OpsError(
            f"{failure.host}: {failure.message.rstrip('.')}{outcome}",
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
