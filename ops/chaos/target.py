"""What a fault is done to, read from a person's words and checked against the lab."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ops.chaos.fault import HOST_GPU, HOST_OR_PAIR, HOST_PATH, HOST_UNIT, MIRROR_STATE, Fault
from ops.errors import InputError
from ops.lab.fleet_plan import LabPlan

UNIT = re.compile(r"[A-Za-z0-9@:._\\*-]+")
PATH = re.compile(r"(/[A-Za-z0-9._@-]+)+")
MIRROR_STATES = ("gone", "mid-sync")


@dataclass(frozen=True)
class Target:
    """A host, and what of it: a unit, a folder, another host or a GPU's index; empty: all of it."""

    host: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.what}" if self.what else self.host


def read_target(fault: Fault, text: str, plan: LabPlan) -> Target:
    """Read a target.

    Args:
        fault: The fault that it is for.
        text: A person's words; empty for the fault's own default.
        plan: The lab.

    Raises:
        InputError: It has not the fault's form, or names what the lab has not.
    """
    text = text or fault.default
    if not text:
        raise InputError(f"{fault.name} needs a target", cure=f"name {fault.target}")
    if fault.target == MIRROR_STATE:
        return Target("outside", _one_of(text, MIRROR_STATES, fault))
    host, colon, what = text.partition(":")
    if host == "edge" and fault.default == "edge":
        host = plan.groups()["edge"][0]
    if host not in plan.hosts:
        raise InputError(
            f"The lab {plan.name} has no host {host!r}", cure=f"use one of {', '.join(plan.hosts)}"
        )
    if bool(what) != bool(colon) or what == host or not _fits(fault, what, plan):
        raise InputError(f"{text!r} is no target of {fault.name}", cure=f"name {fault.target}")
    return Target(host, what)


def _fits(fault: Fault, what: str, plan: LabPlan) -> bool:
    if fault.target == HOST_UNIT:
        return UNIT.fullmatch(what) is not None
    if fault.target == HOST_PATH:
        return PATH.fullmatch(what) is not None and ".." not in what.split("/")
    if fault.target == HOST_GPU:
        return what.isdecimal()
    if fault.target == HOST_OR_PAIR:
        return not what or what in plan.hosts
    return not what


def _one_of(text: str, states: tuple[str, ...], fault: Fault) -> str:
    if text not in states:
        raise InputError(
            f"{text!r} is no target of {fault.name}", cure=f"use {' or '.join(states)}"
        )
    return text
