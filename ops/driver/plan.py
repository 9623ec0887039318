"""What moving drivers means, host by host. Pure: states and apt's answers in, plan out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ops.driver.state import DriverState
from ops.errors import InputError
from ops.fleet.model import Fleet
from ops.operations.plan import Plan, Step

VERSION = re.compile(r"(\d{3,4})(\.\d+(?:\.\d+)?)?")
INSTALL, REMOVE = "install ", "remove "


@dataclass(frozen=True)
class Target:
    """Where to go: a branch, and a version of it or its newest.

    Attributes:
        branch: `595`.
        version: `595.91.07`, or empty for the branch's newest.
    """

    branch: str
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `595` or `595.91.07`.

        Raises:
            InputError: It is neither.
        """
        found = VERSION.fullmatch(text.strip())
        if not found:
            raise InputError(
                f"{text!r} is no driver branch and no version", cure="--to 595, or --to 595.91.07"
            )
        return cls(found[1], text.strip() if found[2] else "")

    def variables(self) -> dict[str, Any]:
        """The role's variables that ask for it."""
        return {
            "nvidia_driver_branch": self.branch,
            "nvidia_driver_version": self.version,
            "nvidia_driver_update": not self.version,
        }


@dataclass(frozen=True)
class HostMove:
    """What happens on one host.

    Attributes:
        host: Its name.
        variables: For the role.
        installed: Version on the disk now.
        loaded: Version in the kernel now.
        to: Version afterwards.
        install: Package to exact version.
        remove: Packages that go.
        reboot: Why it reboots; empty where it does not.
        models: Models it serves.
        alone: Of those, the ones that no other host serves.
        all_in_one: The host is the whole fleet: a reboot takes the stack down.
    """

    host: str
    variables: Mapping[str, Any]
    installed: str
    loaded: str
    to: str
    install: Mapping[str, str]
    remove: tuple[str, ...]
    reboot: str
    models: tuple[str, ...]
    alone: tuple[str, ...]
    all_in_one: bool

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.install or self.remove or self.reboot)

    def as_record(self) -> dict[str, Any]:
        """The move for programs."""
        return {**asdict(self), "needed": self.needed}

    def warnings(self) -> list[str]:
        """What the operator should know before saying yes."""
        if not self.needed:
            return []
        if self.all_in_one and self.reboot:
            return [f"{self.host} is the whole fleet: nothing answers while it reboots"]
        return [f"no other host serves {model} meanwhile" for model in self.alone]


def plan_moves(
    fleet: Fleet,
    states: list[DriverState],
    variables: Mapping[str, Mapping[str, Any]],
    answers: Mapping[str, Mapping[str, Any]],
) -> list[HostMove]:
    """Put together what the hosts are and what apt would do on each.

    Args:
        fleet: The whole fleet, for who else serves a model.
        states: Of the hosts that move, in the order in which they will.
        variables: The role's variables by host.
        answers: The role module's results in check mode, by host.
    """
    return [
        _move(fleet, state, variables[state.host], answers[state.host])
        for state in states
        if state.devices
    ]


def _move(
    fleet: Fleet, state: DriverState, variables: Mapping[str, Any], answer: Mapping[str, Any]
) -> HostMove:
    actions: list[str] = list(answer.get("actions", ()))
    words = (a.removeprefix(INSTALL).split() for a in actions if a.startswith(INSTALL))
    to = str(answer["version"])
    reboot = str(answer.get("reboot", ""))
    if not reboot and state.loaded not in ("", to):
        reboot = f"{state.loaded} is loaded, {to} will be installed"
    models = tuple(model.name for model in fleet.host(state.host).models)
    elsewhere = {
        model.name
        for host in fleet.group("gpu")
        if host.name != state.host
        for model in host.models
    }
    return HostMove(
        host=state.host,
        variables=variables,
        installed=state.installed_next,
        loaded=state.loaded,
        to=to,
        install=dict(words),
        remove=tuple(a.removeprefix(REMOVE) for a in actions if a.startswith(REMOVE)),
        reboot=reboot,
        models=models,
        alone=tuple(name for name in models if name not in elsewhere),
        all_in_one=fleet.single,
    )


def previous_variables(state: DriverState) -> dict[str, Any]:
    """The role's variables that bring back what a host had before.

    Raises:
        InputError: Its record knows of nothing before.
    """
    previous = state.record.get("previous") or {}
    if not previous.get("packages"):
        raise InputError(
            f"{state.host} has no earlier driver to go back to",
            place=f"{state.host}: /etc/ansible/facts.d/nvidia_driver.fact",
            cure="name a version: ops driver upgrade --to 580.178.04",
        )
    return recorded_variables(previous)


def recorded_variables(record: Mapping[str, Any]) -> dict[str, Any]:
    """The role's variables that bring back the packages of a record."""
    found = {
        "nvidia_driver_branch": record["branch"],
        "nvidia_driver_version": record["version"],
        "nvidia_driver_packages": record["packages"],
    }
    if record.get("channel"):
        found["nvidia_driver_channel"] = record["channel"]
    return found


@dataclass(frozen=True)
class Choices:
    """How an operator wants it.

    Attributes:
        drain_seconds: How long requests under way may take.
        ready_seconds: How long a host's engines may take to serve.
        why: In the operator's words.
    """

    drain_seconds: float = 300.0
    ready_seconds: float = 900.0
    why: str = ""


def plan_operation(
    fleet: Fleet,
    verb: str,
    moves: Sequence[HostMove],
    lasting: Mapping[str, Any] | None,
    choices: Choices,
) -> Plan:
    """Plan moves as one operation: host by host, the first failure brings all back.

    Args:
        fleet: The whole fleet.
        verb: `driver upgrade`, `driver rollback`.
        moves: What happens on each host.
        lasting: What the inventory is to want afterwards; None leaves it as it is.
        choices: Bounds and reasons.
    """
    keeper = fleet.first("data").name
    # The keeper of lock and journal goes last: until then its line is whole.
    needed = sorted((move for move in moves if move.needed), key=lambda m: m.host == keeper)
    steps = [step for move in needed for step in _steps(move, choices)]
    warnings = [warning for move in needed for warning in move.warnings()]
    if lasting is not None:
        told = lasting["nvidia_driver_version"] or lasting["nvidia_driver_branch"]
        values = {"variables": dict(lasting)}
        steps.append(Step("driver.inventory", "", f"the inventory wants {told}", values))
    elif needed:
        warnings.append("the inventory stays as it is: these hosts go ahead of it")
    return Plan(
        verb=verb,
        subject=" ".join(move.host for move in needed),
        summary=(f"{len(needed)} of {len(moves)} host(s) move, one after another",),
        steps=tuple(steps),
        warnings=tuple(warnings),
        why=choices.why,
    )


def _steps(move: HostMove, choices: Choices) -> list[Step]:
    values = {
        "hosts": [move.host],
        "to": move.to,
        "drain_seconds": choices.drain_seconds,
        "ready_seconds": choices.ready_seconds,
    }
    reboot = f", reboot: {move.reboot}" if move.reboot else ""
    return [
        Step(f"driver.{kind}", move.host, f"{move.host}: {title}", {**values, **more})
        for kind, title, more in (
            ("drain", "out of traffic, requests under way end", {}),
            (
                "move",
                f"{move.installed or 'no driver'} to {move.to}{reboot}",
                {"variables": dict(move.variables)},
            ),
            ("prove", f"{move.to} is loaded, GPUs answer, engines make tokens", {}),
            ("let_in", "back into traffic", {}),
        )
    ]
