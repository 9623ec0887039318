"""Begin and end faults.

A record is written, and the process that ends it at its time is started, before anything is done,
so that a command which dies at any instant leaves nothing that `ops chaos end` would not find.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ops.chaos import keeper, plan, record
from ops.chaos.fault import Fault, fault_named
from ops.chaos.perform import perform
from ops.chaos.record import Record
from ops.chaos.step import Step
from ops.chaos.target import Target
from ops.errors import InputError, OpsError
from ops.lab.fleet_plan import LabPlan
from ops.lab.mirror import server

ALL = "all"
FIRST_ENDED = ("net-cut", "net-loss", "net-delay", "power-off")
"""Faults that keep a host from being reached, in the order in which they end before others."""


def wanted(
    lab: LabPlan, fault: Fault, target: Target, amount: int | None, seconds: float | None
) -> Record:
    """The record of a fault that is to begin now.

    Raises:
        InputError: A fault that is over at once cannot end after some seconds.
    """
    if fault.momentary and seconds is not None:
        raise InputError(f"{fault.name} is over at once", place="--for", cure="leave --for out")
    begun = time.time()
    until = None if seconds is None else begun + seconds
    found = server.chosen(lab.paths) if fault.name == "mirror" else ""
    return Record(fault.name, target.host, target.what, amount, begun, until, found)


def steps(new: Record) -> list[Step]:
    """All steps that its beginning takes."""
    look = plan.units_of(new)
    return [*([look] if look else []), *plan.begin(new)]


def begin(lab: LabPlan, new: Record) -> tuple[Record, str]:
    """Begin a fault; one that is there already gets the new amount and end.

    Returns:
        The fault as it is now, and what its steps printed.

    Raises:
        OpsError: It could not be begun. What was done of it stays on record, to be ended.
    """
    with record.held(lab.name):
        known = record.load(lab.name)
        same = next((found for found in known if found.is_same(new)), None)
        if same is not None:
            new = replace(new, found=same.found)
        elif look := plan.units_of(new):
            new = replace(new, found=perform(lab, look).strip())
        if not fault_named(new.fault).momentary:
            record.save(lab, record.with_record(known, new))
            if new.until is not None:
                keeper.ensure(lab)
        said = [perform(lab, step).strip() for step in plan.begin(new)]
    return new, " ".join(filter(None, said))


def ordered(records: Sequence[Record]) -> list[Record]:
    """The order in which faults end: first those that keep hosts from being reached."""
    return sorted(
        records,
        key=lambda found: (
            FIRST_ENDED.index(found.fault) if found.fault in FIRST_ENDED else len(FIRST_ENDED),
            -found.begun,
        ),
    )


def end(lab: LabPlan, chosen: Sequence[Record]) -> list[tuple[Record, OpsError]]:
    """End faults; one that cannot be ended keeps no other from it, and stays on record.

    Returns:
        Those that could not be ended, and why.
    """
    failed = []
    for each in ordered(chosen):
        with record.held(lab.name):
            known = record.load(lab.name)
            if not any(each.is_same(found) for found in known):
                continue
            try:
                _end(lab, each, known)
            except OpsError as problem:
                failed.append((each, problem))
    return failed


def _end(lab: LabPlan, each: Record, known: list[Record]) -> None:
    left = record.without(known, each)
    if each.fault in ("net-cut", "net-loss"):  # the network is made from what is on record
        record.save(lab, left)
    try:
        for step in plan.end(each):
            perform(lab, step)
    except OpsError:
        record.save(lab, known)
        raise
    record.save(lab, left)


def matching(records: Sequence[Record], words: str) -> list[Record]:
    """The faults that `ops chaos end` means: all, or those of a name.

    Raises:
        InputError: No fault has that name.
    """
    if words in ("", ALL):
        return list(records)
    fault = fault_named(words).name
    return [found for found in records if found.fault == fault]
