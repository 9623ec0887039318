"""What the remediator acts on: the fleet over SSH, and Alertmanager."""

from __future__ import annotations

import json
import logging
import urllib.request
from urllib.error import URLError

from ops.fleet.model import Fleet
from ops.operations import keeper, run
from ops.operations.journal import Operation
from ops.operations.plan import Plan
from ops.operations.run import Reporter
from ops.remedy.alert import Alert, read_active
from ops.remedy.decision import FleetState
from ops.remedy.look import look
from ops.remedy.plans import plan_action
from ops.remedy.policy import Waits
from ops.remedy.records import Record

ACTIVE = "/api/v2/alerts?active=true&silenced=false&inhibited=false&unprocessed=false"
ASK_SECONDS = 5.0
MOST_BYTES = 8 << 20
LOG = logging.getLogger("remediator")


class RealWorld:
    """The fleet and Alertmanager.

    Args:
        fleet: The fleet.
        waits: How long to wait.
        alertmanager: Its address; empty where there is none to ask.
    """

    def __init__(self, fleet: Fleet, waits: Waits, alertmanager: str) -> None:
        self._fleet = fleet
        self._waits = waits
        self._alertmanager = alertmanager.rstrip("/")
        self.alertmanager_answers: float | None = None

    def look(self) -> FleetState:
        """The fleet as it is."""
        return look(self._fleet)

    def active(self) -> tuple[Alert, ...] | None:
        """What fires now; None where Alertmanager does not say."""
        if not self._alertmanager:
            return None
        try:
            url = self._alertmanager + ACTIVE
            with urllib.request.urlopen(url, timeout=ASK_SECONDS) as answer:  # noqa: S310 - ours
                found = read_active(json.loads(answer.read(MOST_BYTES)))
        except (URLError, OSError, ValueError) as error:
            LOG.info("Alertmanager does not answer: %s", error)
            self.alertmanager_answers = 0.0
            return None
        self.alertmanager_answers = 1.0
        return found

    def still_fires(self, alert: Alert) -> bool | None:
        """Whether Alertmanager still has it, neither silenced nor inhibited; None: unknown."""
        active = self.active()
        return None if active is None else any(a.fingerprint == alert.fingerprint for a in active)

    def plan(self, record: Record, alert: Alert, why: str) -> Plan:
        """The plan of an action."""
        model = alert.labels.get("model", "")
        return plan_action(
            self._fleet, record.action, record.host, record.gpu, model, self._waits, why
        )

    def begin(self, plan: Plan, reporter: Reporter) -> Operation:
        """Carry a plan out."""
        return run.begin(self._fleet, plan, reporter, wait_seconds=self._waits.lock)

    def find(self, words: str) -> Operation | None:
        """The stored operation whose reason contains these words."""
        for found in reversed(keeper.summaries(self._fleet)):
            if words in found["plan"]["why"]:
                return keeper.read(self._fleet, found["id"])
        return None

    def resume(self, name: str, reporter: Reporter) -> Operation:
        """Take an operation up again."""
        return run.resume(self._fleet, name, reporter)
