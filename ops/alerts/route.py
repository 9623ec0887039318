"""Send a real alert through a receiver, and see whether its notification was taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from ops.alerts.alertmanager import Alertmanager, Sent
from ops.errors import InputError

NAME = "RackhandTest"
"""The alert's name, which role alertmanager routes by its label `test_receiver`."""
PREFIX = "test_"
WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """What came of a test.

    Attributes:
        receiver: slack, pagerduty, email or webhook.
        arrived: Whether the other side took the notification.
        failures: Attempts that failed meanwhile.
        seconds: How long it took.
    """

    receiver: str
    arrived: bool
    failures: int
    seconds: float


def choose(wanted: str, configured: Sequence[str]) -> list[str]:
    """Return the receivers to test.

    Args:
        wanted: A receiver, or `all`.
        configured: Names of Alertmanager's configuration.

    Raises:
        InputError: None is set up, or not that one.
    """
    known = [name.removeprefix(PREFIX) for name in configured if name.startswith(PREFIX)]
    if not known:
        raise InputError(
            "no receiver is set up: nobody is told of any alert",
            place="alertmanager_* of the inventory",
            cure="set one (roles/alertmanager/README.md), then ops provision --tags alertmanager",
        )
    if wanted != "all" and wanted not in known:
        raise InputError(
            f"{wanted} is not set up",
            place="ops alerts test",
            cure="one of: all, " + ", ".join(known),
        )
    return known if wanted == "all" else [wanted]


def try_receiver(
    manager: Alertmanager,
    receiver: str,
    host: str,
    *,
    wait: float = WAIT_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Send an alert and wait for the counters of the receiver's integration.

    Args:
        manager: The fleet's Alertmanager.
        receiver: Which of its receivers.
        host: Label `host` of the alert.
        wait: Seconds until it counts as not arrived.
        pause: Sleeps between two looks.
    """
    before = manager.sent().get(receiver, Sent())
    now, begun = datetime.now(UTC), time.monotonic()
    labels = {
        "alertname": NAME,
        "severity": "warning",
        "layer": "watch",
        "host": host,
        "test_receiver": receiver,
        "test_id": uuid4().hex,
    }
    annotations = {
        "summary": f"A test of the receiver {receiver}",
        "description": "Sent by `ops alerts test`. Nothing is wrong.",
        "runbook": "docs/operate.md",
        "cure": "none needed",
    }
    manager.post(labels, annotations, start=now, end=now + timedelta(seconds=wait * 2))
    while True:
        sent = manager.sent().get(receiver, Sent())
        if sent.arrived > before.arrived:
            # An attempt is counted, and a moment later that it failed: it is looked at once more.
            pause(LOOK_SECONDS)
            sent = manager.sent().get(receiver, Sent())
        seconds = time.monotonic() - begun
        arrived = sent.arrived > before.arrived
        if arrived or seconds > wait:
            failures = int(sent.failed - before.failed)
            return Outcome(receiver, arrived, failures, round(seconds, 1))
        pause(LOOK_SECONDS)
