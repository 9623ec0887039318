"""The fleet as a decision needs it, asked over SSH."""

from __future__ import annotations

from ops.fleet.model import Fleet, Host
from ops.live.state import WELL, HostState
from ops.live.watch import survey
from ops.remedy.decision import FleetState, HostView


def look(fleet: Fleet) -> FleetState:
    """Ask every GPU host; one that does not answer is a result, not an error."""
    hosts = fleet.group("gpu")
    states = {state.host: state for state in survey(fleet, *hosts).hosts}
    return FleetState({host.name: view(host, states[host.name]) for host in hosts})


def view(host: Host, state: HostState) -> HostView:
    """Turn what a host said into what a decision needs. Pure."""
    serving = {
        name
        for name, model in state.models.items()
        if not model.held
        and any(slot.share > 0 and slot.state in WELL for slot in model.slots.values())
    }
    return HostView(
        models=frozenset(model.name for model in host.models),
        serving=frozenset() if state.drained or state.problem else frozenset(serving),
        drained=state.drained,
        problem=state.problem,
    )
