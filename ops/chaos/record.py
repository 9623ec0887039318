"""What faults a lab has now, kept in its state folder so that another process can end them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ops.chaos.target import Target
from ops.errors import OpsError
from ops.lab.fleet_plan import LabPlan
from ops.lab.locks import locked
from ops.lab.paths import STATE, LabPaths, write_atomically


@dataclass(frozen=True)
class Record:
    """A fault that was begun and has not been ended.

    Attributes:
        fault: Its name.
        host: The host it was done to.
        what: What of the host; empty: all of it.
        amount: How much; None where the fault knows no amount.
        begun: When, seconds since the epoch.
        until: When it ends by itself, the same; None: when somebody ends it.
        found: What was there before, which its end needs: the units, the mirror's state.
    """

    fault: str
    host: str
    what: str = ""
    amount: int | None = None
    begun: float = 0.0
    until: float | None = None
    found: str = ""

    @property
    def target(self) -> Target:
        """What it is done to."""
        return Target(self.host, self.what)

    def is_same(self, other: Record) -> bool:
        """Whether both are the same fault of the same target."""
        return (self.fault, self.host, self.what) == (other.fault, other.host, other.what)


def path(name: str) -> Path:
    """Where a lab's faults are written down; `ops lab down` takes it away with the lab."""
    return LabPaths(name).root / "chaos.json"


@contextmanager
def held(name: str) -> Iterator[None]:
    """Hold the lock of a lab's faults: one is begun or ended at a time."""
    with locked(STATE / "locks" / f"{name}.chaos.lock"):
        yield


def load(name: str) -> list[Record]:
    """The faults of a lab, the oldest first.

    Raises:
        OpsError: The file was damaged by hand.
    """
    try:
        return [Record(**entry) for entry in json.loads(path(name).read_text())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as problem:
        raise OpsError(
            f"The lab's faults cannot be read: {problem}",
            place=str(path(name)),
            cure=f"ops lab down --name {name}",
        ) from problem


def save(plan: LabPlan, records: list[Record]) -> None:
    """Write the faults of a lab."""
    write_atomically(
        path(plan.name), json.dumps([asdict(found) for found in records], indent=2) + "\n"
    )


def with_record(records: list[Record], new: Record) -> list[Record]:
    """Add a record; one of the same fault and target keeps what it found, and gets the rest."""
    before = next((found for found in records if found.is_same(new)), None)
    if before is None:
        return [*records, new]
    merged = replace(new, found=before.found or new.found, begun=before.begun)
    return [merged if found is before else found for found in records]


def without(records: list[Record], gone: Record) -> list[Record]:
    """Take a record out."""
    return [found for found in records if not found.is_same(gone)]
