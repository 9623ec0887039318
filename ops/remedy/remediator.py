"""The remediator: decides on alerts one by one, writes down, acts, finishes what it began.

A record is on the disk before anything is done, and the operation's reason carries the record's
name: after a death the keeper's journal says whether anything was begun, and how far it came.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ops.errors import OpsError
from ops.fleet.model import Fleet
from ops.operations.journal import Event, Operation, Status
from ops.operations.keeper import LockedError, LockLostError
from ops.operations.plan import Plan, Step
from ops.operations.run import PausedError, Reporter, RolledBackError, StuckError
from ops.remedy.alert import Alert
from ops.remedy.decision import Decision, FleetState, decide, rule_for, screen
from ops.remedy.policy import Action, Mode, Policy
from ops.remedy.records import Outcome, Record, Records, Verdict

PAUSED = "paused"
"""The kill switch: while a file of this name is in the state directory, nothing is begun."""
LOG = logging.getLogger("remediator")


class World(Protocol):
    """What the remediator acts on; `ops.remedy.world` is the real one."""

    def look(self) -> FleetState:
        """The fleet as it is."""

    def still_fires(self, alert: Alert) -> bool | None:
        """Whether Alertmanager still has it, neither silenced nor inhibited; None: unknown."""

    def plan(self, record: Record, alert: Alert, why: str) -> Plan:
        """The plan of an action."""

    def begin(self, plan: Plan, reporter: Reporter) -> Operation:
        """Carry a plan out, as `ops.operations.run.begin`."""

    def find(self, words: str) -> Operation | None:
        """The stored operation whose reason contains these words."""

    def resume(self, name: str, reporter: Reporter) -> Operation:
        """Take an operation up again, as `ops.operations.run.resume`."""


@dataclass
class Tally:
    """Told what happens, for metrics; this one tells nobody."""

    def decided(self, record: Record) -> None:
        """A decision was written down."""

    def ended(self, record: Record) -> None:
        """An action ended."""


class Remediator:
    """Decides and acts, one alert after the other.

    Args:
        fleet: The fleet.
        policy: The inventory's.
        records: What was done before.
        folder: The state directory.
        world: What it acts on.
        tally: Told what happens.
        clock: The time.
    """

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        records: Records,
        folder: Path,
        world: World,
        tally: Tally,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fleet = fleet
        self._policy = policy
        self._records = records
        self._folder = folder
        self._world = world
        self._tally = tally
        self._clock = clock

    @property
    def paused(self) -> str:
        """Who paused it and why; empty if nobody did."""
        return read_pause(self._folder)

    def handle(self, alerts: Sequence[Alert]) -> None:
        """Take alerts in, in their order; one that cannot be dealt with holds up no other."""
        for alert in alerts:
            if self._records.open:
                return  # Alertmanager tells them again; one thing after the other
            try:
                self._handle(alert)
            except PausedError:
                raise
            except Exception:
                LOG.exception("%s could not be decided on", alert.told())

    def recover(self) -> None:
        """Finish what was begun before a death, or say that a person has to.

        Raises:
            PausedError: We were told to stop meanwhile.
        """
        for record in self._records.open:
            try:
                self._recover(record)
            except PausedError:
                raise
            except LockLostError as error:
                LOG.warning("%s: %s", record.id, error.message)
            except (RolledBackError, StuckError, OpsError) as error:
                if isinstance(error, RolledBackError | StuckError):
                    self._end(record, _outcome(error), str(error))
                else:  # the keeper is away, or held: later
                    LOG.warning("%s waits: %s", record.id, error.message)

    def explain(self, alert: Alert) -> Decision:
        """What would be decided about an alert now; writes and does nothing."""
        return decide(
            alert, self._policy, self._records.all, self._world.look(), self._clock(),
            paused=self.paused,
        )  # fmt: skip

    def _handle(self, alert: Alert) -> None:
        decision = self._decide(alert)
        record = self._record(alert, decision)
        if decision.verdict != Verdict.ACT:
            if not self._told_already(record):
                self._decided(record)
            return
        self._decided(record)
        self._act(record, alert)

    def _decide(self, alert: Alert) -> Decision:
        hosts = {host.name: host for host in self._fleet.group("gpu")}
        now, history = self._clock(), self._records.all
        decision = screen(alert, self._policy, history, hosts, now, paused=self.paused)
        if decision is not None:
            return decision
        if self._world.still_fires(alert) is False:
            action = decide_action(alert, self._policy)
            return Decision(
                Verdict.SKIP, action, "resolved", f"{alert.name} no longer fires, or is silenced"
            )
        return decide(
            alert, self._policy, history, self._world.look(), self._clock(), paused=self.paused
        )

    def _record(self, alert: Alert, decision: Decision) -> Record:
        now = self._clock()
        name = f"{now:%Y%m%d-%H%M%S-%f}-{re.sub('[^0-9a-z]+', '-', alert.host.lower())[:20]}"
        return Record(
            id=name,
            at=now,
            key=alert.key,
            cause=alert.cause,
            alert=alert.told(),
            host=alert.host,
            gpu=alert.gpu,
            action=decision.action,
            verdict=decision.verdict,
            code=decision.code,
            reason=decision.reason,
        )

    def _told_already(self, record: Record) -> bool:
        """Whether the last word on this occurrence was the same; resolved ones need none at all."""
        if record.code in ("resolved", "duplicate", "no_rule"):
            return True
        before = next((r for r in reversed(self._records.all) if r.key == record.key), None)
        return before is not None and (before.verdict, before.code) == (record.verdict, record.code)

    def _decided(self, record: Record) -> None:
        self._records.decided(record)
        self._tally.decided(record)
        LOG.warning("%s: %s: %s", record.id, record.verdict, record.reason)

    def _act(self, record: Record, alert: Alert) -> None:
        reporter = _Reporter(self._records, record.id, self._clock)
        try:
            plan = self._world.plan(record, alert, f"{alert.told()} [{record.id}]")
            operation = self._world.begin(plan, reporter)
        except (PausedError, LockLostError) as error:
            # It is open: taken up by `recover`, after our own restart or the keeper's reboot.
            LOG.warning("%s: %s", record.id, error.message)
            if isinstance(error, PausedError):
                raise
        except OpsError as error:
            self._end(record, _outcome(error), str(error))
        except Exception as error:  # a fault of ours: counted, or it would come again and again
            LOG.exception("%s failed", record.id)
            self._end(record, Outcome.FAILED, repr(error))
        else:
            self._end(record, Outcome.DONE, str(operation.status))

    def _recover(self, record: Record) -> None:
        operation = self._world.find(f"[{record.id}]")
        if operation is None:
            self._end(record, Outcome.NOT_BEGUN, "we ended before the operation was stored")
            return
        if record.operation != operation.id:
            self._records.operation(record.id, operation.id, self._clock())
        if operation.ended:
            back = operation.status == Status.ROLLED_BACK
            why = operation.failure or str(operation.status)
            self._end(record, Outcome.ROLLED_BACK if back else Outcome.DONE, why)
        elif operation.status == Status.RUNNING:
            LOG.warning("%s: somebody works on %s", record.id, operation.id)
        elif operation.status == Status.STUCK:
            self._end(record, Outcome.STUCK, f"mend it, then: ops resume {operation.id}")
        elif self.paused or self._policy.mode != Mode.ACT:
            why = "remediation is paused" if self.paused else f"mode is {self._policy.mode}"
            cure = f"ops resume {operation.id}, or ops abort {operation.id}"
            self._end(record, Outcome.ABANDONED, f"{why}: {cure}")
        else:
            reporter = _Reporter(self._records, record.id, self._clock)
            done = self._world.resume(operation.id, reporter)
            back = done.status == Status.ROLLED_BACK
            self._end(record, Outcome.ROLLED_BACK if back else Outcome.DONE, "resumed")

    def _end(self, record: Record, outcome: Outcome, why: str) -> None:
        self._records.ended(record.id, outcome, why, self._clock())
        self._tally.ended(next(r for r in self._records.all if r.id == record.id))
        LOG.warning("%s: %s: %s", record.id, outcome, why)


class _Reporter:
    """Writes the operation's name into the record, and what goes on into the log."""

    def __init__(self, records: Records, name: str, clock: Callable[[], datetime]) -> None:
        self._records = records
        self._name = name
        self._clock = clock

    def opened(self, operation: Operation, how: str) -> None:
        """The lock is ours."""
        LOG.warning("%s: %s operation %s", self._name, how, operation.id)
        self._records.operation(self._name, operation.id, self._clock())

    def step(self, number: int, step: Step, event: Event, seconds: float, why: str) -> None:
        """A step begins, ends, fails, is undone."""
        LOG.info(
            "%s: [%d] %s: %s %.1f s %s", self._name, number + 1, step.title, event, seconds, why
        )

    def say(self, words: str) -> None:
        """What goes on within a step."""
        LOG.info("%s: %s", self._name, words)


def decide_action(alert: Alert, policy: Policy) -> Action:
    """The action that the policy has for an alert."""
    rule = rule_for(alert, policy)
    return rule.action if rule else Action.NONE


def read_pause(folder: Path) -> str:
    """Who paused it and why; empty if nobody did."""
    try:
        return (folder / PAUSED).read_text(encoding="utf-8").strip()[:500] or "nobody said why"
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{PAUSED} cannot be read: {error}"


def _outcome(error: OpsError) -> Outcome:
    kinds = {
        LockedError: Outcome.BUSY,
        RolledBackError: Outcome.ROLLED_BACK,
        StuckError: Outcome.STUCK,
    }
    return next((found for kind, found in kinds.items() if isinstance(error, kind)), Outcome.FAILED)
