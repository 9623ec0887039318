"""Have backups proven: on the data host by a restore, where the repository is by its checksums."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from ops.backup.survey import Survey
from ops.fleet.model import Fleet
from ops.remote import connect, run

UNIT = "rackhand-backup-verify.service"
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Proof:
    """What a host found.

    Attributes:
        host: Its name.
        good: Whether all is well.
        said: The last of what it said.
        seconds: How long it took.
    """

    host: str
    good: bool
    said: str
    seconds: float

    def as_record(self) -> dict[str, Any]:
        """The proof for programs."""
        return asdict(self)


def prove(fleet: Fleet, found: Survey) -> list[Proof]:
    """Run the proof on the data host, and where the repository is.

    Raises:
        RemoteError: A host cannot be reached.
    """
    return [prove_on(fleet, name) for name in dict.fromkeys((found.host, found.runs_on))]


def prove_on(fleet: Fleet, name: str) -> Proof:
    """Start the host's own unit, wait until it has ended, read what it said."""
    host, began = fleet.host(name), time.monotonic()
    with connect(fleet, host) as connection:
        run(connection, host, f"systemctl start --no-block {UNIT}")
        while True:
            time.sleep(POLL_SECONDS)
            shown = run(
                connection, host, f"systemctl show -p ActiveState,Result,InvocationID {UNIT}"
            )
            state = dict(line.split("=", 1) for line in shown.split())
            if state["ActiveState"] in ("inactive", "failed"):
                break
        words = f"journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID={state['InvocationID']}"
        said = run(connection, host, words).strip()
    good = state["Result"] == "success"
    told = said.splitlines()[-1] if good and said else said[-1500:]
    return Proof(host.name, good, told or "the repository is whole", time.monotonic() - began)
