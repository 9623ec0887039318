"""Alerts of a fleet whose watch has a host of its own: one cause is told once, and its end.

Edge, app and data are on node1, engines on node2 and node4, the watch on node3. Clients ask all the
while. Each test writes its row of docs/results/<date>-alerts-fleet.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pytest
import yaml
from cells import CLIENTS
from matrix import SECONDS_IN_FLIGHT
from operators import ops
from results import add_to_result
from stack import Lab, Stack
from stand_in_stack import stand_in_stack
from traffic import figures, traffic
from watched import (
    Watched,
    assert_told_by_one_name,
    assert_told_once_and_resolved,
    cause,
    listed,
    quiet,
    receivers,
)

from ops.lab.fleet_plan import require_plan
from ops.lab.inventory import HEADER, hosts

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1200)]

ENGINE = "engine@demo-blue.service"
DROP_IN = f"/run/systemd/system/{ENGINE}.d"
KILL = (
    f"mkdir -p {DROP_IN}; printf '[Service]\\nExecStartPre=false\\n' >{DROP_IN}/broken.conf; "
    f"systemctl daemon-reload; systemctl kill -s KILL {ENGINE}"
)
MEND = f"rm -r {DROP_IN}; systemctl daemon-reload; systemctl reset-failed {ENGINE}; "
MEND += f"systemctl restart {ENGINE}"
HELD_SECONDS = 45.0
"""How long a fault lasts once it was told: longer than each `for` of what follows, scaled."""
WITHIN, RESOLVED = 60.0, 90.0
HEADINGS = (
    "cause", "told", "after", "held back meanwhile", "resolved after", "requests",
    "lost under way", "failed later",
)  # fmt: skip
NOTES = """\
Four clients ask through the edge. Waiting times of the rules are a tenth. Told once by a webhook
and by mail, and nothing else is told until 75 s after the fault's end. Resolved after: from the
return of what ends the fault. Lost under way: requests that had begun when it struck, or within a
second. With the only database gone no request is promised anything.
"""


@dataclass(frozen=True)
class Cause:
    """A fault, what is told of it, and whether requests are served meanwhile."""

    begin: Callable[[Stack], AbstractContextManager[None]]
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    served: bool = True


def chaos(fault: str, target: str) -> Callable[[Stack], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def begin(stack: Stack) -> Iterator[None]:
        ops(stack, "chaos", "inject", fault, target)
        try:
            yield
        finally:
            ops(stack, "chaos", "end", fault)

    return begin


CAUSES = {
    "an engine host loses its power": Cause(
        chaos("power-off", "node2"), "HostDown", {"host": "node2"}
    ),
    "an engine is killed and cannot start": Cause(
        lambda stack: cause(stack.lab, KILL, MEND, "node2"),
        "EngineDown",
        {"host": "node2", "model": "demo"},
    ),
    "PostgreSQL is stopped": Cause(
        chaos("stop", "node1:postgresql@*"), "PostgresDown", {"host": "node1"}, served=False
    ),
    "the watch is cut off from an engine host": Cause(
        chaos("net-cut", "node3:node2"), "HostDown", {"host": "node2"}
    ),
}


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Iterator[Lab]:
    made = labs(4, "bookworm", purpose="alerts")
    path = made.inventory / "hosts.yml"
    before = path.read_text()
    fleet = hosts(require_plan(made.name))
    fleet["all"]["children"]["data"]["hosts"] = {"node1": {}}  # apart from the watch on node3
    path.write_text(HEADER + yaml.safe_dump(fleet))
    yield made
    path.write_text(before)


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Iterator[Watched]:
    with receivers(lab) as made:
        yield made


@pytest.fixture(scope="module")
def stack(watched: Watched, labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs, hosts=4, purpose="alerts") as made:
        yield made


@pytest.mark.parametrize("words", CAUSES)
def test_one_cause_is_told_once_with_its_host_and_resolved(
    words: str, stack: Stack, watched: Watched
) -> None:
    wanted = CAUSES[words]
    held: set[str] = set()
    quiet(stack)

    def hold() -> None:
        end = time.monotonic() + HELD_SECONDS
        while time.monotonic() < end:
            held.update(name for name, state in listed(stack).items() if state == "inhibited")

    with traffic(stack, clients=CLIENTS) as running:
        running.wait_for(20)

        @contextlib.contextmanager
        def struck() -> Iterator[None]:
            with wanted.begin(stack):
                time.sleep(SECONDS_IN_FLIGHT)
                running.mark("later")
                yield

        told, resolved = assert_told_once_and_resolved(
            watched, wanted.name, struck(), within=WITHIN, resolved=RESOLVED, also=hold
        )
        assert_told_by_one_name(stack, watched, wanted.name, **wanted.labels)
    every, later = figures(running.answers), figures(running.after("later"))
    about = " ".join(f"{key}={value}" for key, value in wanted.labels.items())
    row = (
        words, f"{wanted.name} {about}", f"{told:.0f} s", ", ".join(sorted(held)) or "none",
        f"{resolved:.0f} s", str(every.requests), str(every.failed - later.failed),
        str(later.failed),
    )  # fmt: skip
    add_to_result("alerts-fleet", "Alerts of a fleet", HEADINGS, [row], NOTES)
    if wanted.served:
        assert every.failed == 0, running.told()
