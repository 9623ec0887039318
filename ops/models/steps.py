"""The steps that move a model: each brings something about and can undo it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ops.engine.switchboard import Switchboard
from ops.errors import OpsError
from ops.evals import store
from ops.evals.gate import judge_slot, require_pass
from ops.evals.report import Report
from ops.evals.suite import Suite
from ops.models.budget import Budget, FirstTokens, Sample, judge, judge_first_tokens
from ops.models.state import model_on
from ops.operations.plan import Step
from ops.operations.work import Context, host_of
from ops.places import ROOT
from ops.playbook import run_playbook
from ops.remote import connect

PLAYBOOK = ROOT / "playbooks" / "engine_slot.yml"
WATCH_SECONDS = 1.0


class EngineStep:
    """What all of them have: a host, a model, the step's values and what it noted."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        self.context = context
        self.host = host_of(context, step)
        self.values = step.values
        self.detail = dict(detail)
        found = model_on(self.host, step.values["model"])
        if found is None:
            raise OpsError(
                f"the inventory has no model {step.values['model']} for {self.host.name} any more",
                place=str(context.fleet.inventory),
                cure="put it back until the operation has ended",
            )
        self.model = found

    @property
    def slot(self) -> str:
        """The slot that the step is about."""
        return str(self.values["slot"])

    @contextmanager
    def board(self) -> Iterator[Switchboard]:
        """Open the host."""
        with connect(self.context.fleet, self.host) as connection:
            yield Switchboard(connection, self.host, self.model, self.context.say)

    def note(self, **detail: Any) -> None:
        """Write down what the undo needs, before it is changed; what was noted first stays."""
        fresh = {name: value for name, value in detail.items() if name not in self.detail}
        if fresh:
            self.detail |= fresh
            self.context.note(fresh)

    def holds(self) -> bool:
        """Not known: do it again, which every step can bear."""
        return False

    def undo(self) -> None:
        """Nothing to bring back."""


class Clear(EngineStep):
    """The standby slot is stopped; a rollback to it is given up."""

    def do(self) -> None:
        with self.board() as board:
            board.keep(self.slot)
            board.stop(self.slot)


class Prepare(EngineStep):
    """A slot's weights, environment and settings lie on the host. Undone by nothing: unused."""

    def do(self) -> None:
        candidate = {
            "name": self.model.name,
            "slot": self.slot,
            "entry": dict(self.values["entry"]),
        }
        variables = {"engine_candidate": candidate, "fleet_operation": self.context.operation}
        arguments = ["--limit", self.host.name, "-e", json.dumps(variables)]
        _status, progress = run_playbook(
            PLAYBOOK, self.context.fleet.inventory, arguments=arguments
        )
        for failure in progress.failures:
            raise OpsError(
                f"{failure.host}: {failure.message}",
                place=f"{failure.host}, {failure.role}: {failure.task}",
            )


class Start(EngineStep):
    """A slot's engine runs and has made a token."""

    def do(self) -> None:
        with self.board() as board:
            board.start(self.slot, float(self.values["ready_seconds"]))

    def undo(self) -> None:
        with self.board() as board:
            state = board.survey()
            if state["slots"][self.slot]["active"] in ("active", "activating", "reloading"):
                board.wait_idle(self.slot, float(self.values["drain_seconds"]))
            board.stop(self.slot)


class Gate(EngineStep):
    """A slot's engine passes a suite, no worse than the one that serves."""

    def do(self) -> None:
        suite = Suite.model_validate(self.values["suite"])
        entry, old = dict(self.values["entry"]), str(self.values["old"])
        old_entry = dict(self.values["old_entry"])
        baseline = store.read(self.context.fleet, self.model.name, old_entry, suite.name)
        if baseline is None and self._runs(old):
            self.context.say(f"asking {old} first: it has no baseline yet")
            baseline = self._judge(suite, old, old_entry, None)
        report = self._judge(suite, self.slot, entry, baseline)
        require_pass(report, f"{self.host.name}: {self.slot}")

    def _judge(
        self, suite: Suite, slot: str, entry: Mapping[str, Any], baseline: Report | None
    ) -> Report:
        return judge_slot(
            self.context.fleet, self.host, self.model, suite,
            slot=slot, entry=entry, baseline=baseline, say=self.context.say,
        )  # fmt: skip

    def _runs(self, slot: str) -> bool:
        with self.board() as board:
            return bool(board.survey()["slots"][slot]["active"] == "active")


class Stop(EngineStep):
    """A slot's engine has ended what it had begun, and is stopped."""

    def do(self) -> None:
        with self.board() as board:
            board.wait_idle(self.slot, float(self.values["drain_seconds"]))
            board.stop(self.slot)

    def undo(self) -> None:
        with self.board() as board:
            board.start(self.slot, float(self.values["ready_seconds"]))


class Hold(EngineStep):
    """New requests for the model get 503 on this host: the app holds on, or goes elsewhere."""

    def do(self) -> None:
        with self.board() as board:
            board.hold(f"operation {self.context.operation}")

    def undo(self) -> None:
        with self.board() as board:
            board.release()


class Release(EngineStep):
    """Requests are let in again."""

    def do(self) -> None:
        with self.board() as board:
            board.release()

    def undo(self) -> None:
        with self.board() as board:
            board.hold(f"operation {self.context.operation}")


class Shift(EngineStep):
    """A slot gets its share of new requests, and does well for a while."""

    def do(self) -> None:
        watched, seconds = str(self.values["watched"]), float(self.values["seconds"])
        with self.board() as board:
            marks = {slot: board.read_log(slot, -1)["offset"] for slot in self._compared()}
            before = board.survey()["slots"]
            restarts = before[watched]["restarts"]
            board.set_traffic(self.values["weights"])
            deadline = time.monotonic() + seconds
            samples = {slot: Sample() for slot in marks}
            while time.monotonic() < deadline:
                time.sleep(min(WATCH_SECONDS, max(0.0, deadline - time.monotonic())))
                for slot, mark in marks.items():
                    found = board.read_log(slot, mark)
                    marks[slot] = found["offset"]
                    samples[slot] = samples[slot].plus(found)
                now = board.survey()["slots"]
                self._require_alive(board, watched, now[watched], restarts)
                self._require_budget(samples, before[watched], now)
            if seconds:
                self.context.say(samples[watched].told())

    def undo(self) -> None:
        with self.board() as board:
            board.set_traffic(self.values["before"])

    def _compared(self) -> tuple[str, ...]:
        if not self.values["seconds"]:
            return ()
        return tuple({str(self.values["watched"]), str(self.values["against"])})

    def _require_alive(
        self, board: Switchboard, slot: str, state: Mapping[str, Any], restarts: int
    ) -> None:
        if state["restarts"] > restarts or state["active"] != "active":
            raise board.dead_while_serving(slot, f"{board.unit(slot)} died while it served")

    def _require_budget(
        self, samples: Mapping[str, Sample], before: Mapping[str, Any], now: Mapping[str, Any]
    ) -> None:
        budget = Budget(float(self.values["max_error_share"]), float(self.values["max_slowdown"]))
        watched, against = self.values["watched"], self.values["against"]
        # The proxy sees headers, which come before the first token: the engines know that one.
        new = FirstTokens(*now[watched]["first_token"]).since(FirstTokens(*before["first_token"]))
        old = FirstTokens(*now[against]["first_token"])
        why = judge(samples[watched], samples[against], budget)
        why = why or judge_first_tokens(new, old, budget)
        if why:
            raise OpsError(f"{watched} is over its budget: {why}", place=self.host.name)


class Commit(EngineStep):
    """The host says that a slot is the one that serves, and brings that one up after a reboot."""

    def do(self) -> None:
        with self.board() as board:
            self.note(standby=board.survey()["fact"].get("standby") or {})
            board.keep(self.slot)  # it was to be stopped, where it is the one of before
            board.enable(self.slot, on=True)
            # A restart in the other slot leaves what a rollback goes back to as it was.
            kept = self.values.get("standby", self.values["old_entry"])
            self._set(board, self.slot, self.values["entry"], dict(kept))
            board.enable(str(self.values["old"]), on=False)

    def undo(self) -> None:
        with self.board() as board:
            old = str(self.values["old"])
            board.enable(old, on=True)
            standby = self.detail.get("standby") or {}
            self._set(board, old, self.values["old_entry"], standby)
            board.enable(self.slot, on=False)

    def _set(
        self, board: Switchboard, slot: str, entry: Mapping[str, Any], standby: Mapping[str, Any]
    ) -> None:
        environment = board.environment(slot)
        board.set_fact(
            active=slot,
            port=self.model.slot_port(slot),
            revision=entry["revision"],
            environment=environment,
            path=f"/srv/models/{self.model.name}/{entry['revision']}",
            entry=dict(entry),
            standby=dict(standby),
        )


class Retire(EngineStep):
    """The old slot stays ready for a while and then stops by itself, or stops now."""

    def do(self) -> None:
        with self.board() as board:
            if seconds := float(self.values["seconds"]):
                board.stop_later(self.slot, seconds)
                return
            board.wait_idle(self.slot, float(self.values["drain_seconds"]))
            board.stop(self.slot)

    def undo(self) -> None:
        with self.board() as board:
            board.keep(self.slot)
            board.start(self.slot, float(self.values["ready_seconds"]))


KINDS = {
    "engine.clear": Clear,
    "engine.prepare": Prepare,
    "engine.start": Start,
    "engine.stop": Stop,
    "engine.gate": Gate,
    "engine.hold": Hold,
    "engine.release": Release,
    "engine.shift": Shift,
    "engine.commit": Commit,
    "engine.retire": Retire,
}
