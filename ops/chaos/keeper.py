"""End faults at their time, whoever began them: `python -m ops.chaos.keeper LAB`.

One process for a lab, in a control group of its own. It lives for as long as a fault has a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from ops.chaos import record
from ops.lab.cgroup import Group
from ops.lab.fleet_plan import LabPlan, load_plan
from ops.lab.locks import try_lock
from ops.lab.paths import REPOSITORY, STATE

TURN_SECONDS = 0.5
AGAIN_SECONDS = 5.0  # after a fault that could not be ended, as its host was off


def group(name: str) -> Group:
    """Its control group; no lab's name begins with a dot."""
    return Group(f".chaos/{name}")


def ensure(lab: LabPlan) -> None:
    """Start it; where one lives already the new one leaves at once.

    The caller holds the lock of the lab's faults, under which a keeper decides to leave.
    """
    join = group(lab.name).joiner()
    with (lab.paths.root / "chaos.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "ops.chaos.keeper", lab.name],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=join,  # noqa: PLW1509 - no other thread runs here
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip


def remove(name: str) -> None:
    """End it, for a lab that goes."""
    group(name).remove()


def main(name: str) -> None:
    """End faults as they are due, until no fault has a time."""
    from ops.chaos.inject import end

    sign_of_life = try_lock(STATE / "locks" / f"{name}.chaos-keeper.lock")
    if sign_of_life is None:
        return
    while True:
        with record.held(name):
            lab = load_plan(name)
            timed = [found for found in record.load(name) if found.until is not None]
            if lab is None or not timed:
                os.close(sign_of_life)
                return
        now = time.time()
        due = [found for found in timed if found.until is not None and found.until <= now]
        for each, problem in end(lab, due):
            print(f"{each.fault} {each.target}: {problem}", flush=True)
            time.sleep(AGAIN_SECONDS)
        time.sleep(TURN_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
