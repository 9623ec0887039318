"""The steps of a driver's move: out of traffic, one transaction and its reboot, proof, back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ops.driver.check import PLAYBOOK, raise_failures
from ops.driver.plan import recorded_variables
from ops.driver.state import DriverState, ask
from ops.engine import traffic
from ops.errors import OpsError
from ops.fleet.desired import defined_variables, restore_variables, write_variables
from ops.fleet.model import Host
from ops.operations.plan import Step
from ops.operations.work import Context
from ops.playbook import Progress, run_playbook
from ops.remote import connect
from ops.restarts import host_steps

GROUP = "gpu"


class DriverStep(host_steps.HostStep):
    """What they have beyond a reboot's steps: one host, and its driver."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        super().__init__(context, step, detail)
        self.step = step

    @property
    def host(self) -> Host:
        """The host that moves."""
        return self.hosts[0]

    def ask(self) -> DriverState:
        """Ask the host what it has.

        Raises:
            OpsError: It does not answer.
        """
        state = ask(self.fleet, self.host)
        if state.problem:
            raise OpsError(state.problem, place=self.host.name, cure="ops driver status")
        return state

    def serve(self) -> None:
        """Start the host's engines and wait until each has made a token."""
        with connect(self.fleet, self.host) as connection:
            slots = traffic.active_slots(connection, self.host)
            traffic.start(connection, self.host, slots)
            traffic.wait_until_ready(
                connection, self.host, slots, self.seconds("ready"), self.context.say
            )


class Drain(host_steps.Drain, DriverStep):
    """No new request comes to the host, and those under way have ended."""

    def _bring_back(self, host: Host) -> None:
        self.serve()
        self.let_in(host)


class Move(DriverStep):
    """The wanted driver is installed and loaded; the engines were stopped for it."""

    def do(self) -> None:
        state = self.ask()
        if "record" not in self.detail:
            before = {"record": state.record, "on_disk": state.installed_next}
            self.detail |= before
            self.context.note(before)
        self._play(self.values["variables"])

    def holds(self) -> bool:
        """Whether the driver is there and loaded: where the host is the keeper, the reboot ended
        the line before that could be written down."""
        state = self.ask()
        return bool(state.loaded == state.installed_next == self.values["to"])

    def undo(self) -> None:
        if "record" not in self.detail:
            return
        state, before = self.ask(), self.detail["record"]
        if state.record == before and state.installed_next == self.detail["on_disk"]:
            return
        if not before.get("packages"):
            self.context.say(f"{self.host.name} had no driver of ours before: this one stays")
            return
        self._play(recorded_variables(before))
        prove(self.host, self.ask(), before["version"])

    def _play(self, variables: Any) -> None:
        with connect(self.fleet, self.host) as connection:
            slots = traffic.active_slots(connection, self.host)
            traffic.stop(connection, self.host, slots)  # nothing holds a GPU
        wanted = {**variables, "fleet_operation": self.context.operation}
        arguments = ["--limit", self.host.name, "-e", json.dumps(wanted)]
        told = ""

        def tell(_event: str, progress: Progress, _text: str) -> None:
            nonlocal told
            if progress.task and progress.task != told:
                told = progress.task
                self.context.say(f"{self.host.name}: {told}")

        _status, progress = run_playbook(
            PLAYBOOK, self.fleet.inventory, arguments=arguments, observer=tell
        )
        raise_failures(progress)


class Prove(DriverStep):
    """The driver is loaded, every GPU answers, every engine has made a token."""

    def do(self) -> None:
        state = self.ask()
        prove(self.host, state, self.values["to"])
        self.context.say(f"{state.loaded} is loaded, {len(state.gpus)} of {state.devices} answer")
        self.serve()


class LetIn(host_steps.LetIn, DriverStep):
    """The host gets requests again; whoever goes back from here takes it out first."""

    def undo(self) -> None:
        Drain(self.context, self.step, {}).do()


class WriteInventory:
    """The inventory wants what its hosts now have, so that site.yml leaves them alone."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        self._context = context
        self._wanted = dict(step.values["variables"])
        self._before: Mapping[str, Any] | None = detail.get("before")

    def do(self) -> None:
        inventory = self._context.fleet.inventory
        if self._before is None:
            self._context.note({"before": defined_variables(inventory, GROUP, self._wanted)})
        for path in write_variables(inventory, GROUP, self._wanted):
            self._context.say(f"wrote {path.name}")

    def holds(self) -> bool:
        """Another checkout's inventory may not have it: write it there too."""
        return False

    def undo(self) -> None:
        if self._before is not None:
            inventory = self._context.fleet.inventory
            restore_variables(inventory, GROUP, self._before, self._wanted)


def prove(host: Host, state: DriverState, version: str) -> None:
    """Hold a host against what it was to become.

    Raises:
        OpsError: Another driver is loaded, or a GPU does not answer.
    """
    problems = list(state.findings)
    if state.loaded != version:
        problems.insert(0, f"{state.loaded or 'no driver'} is loaded, not {version}")
    if problems:
        raise OpsError(
            f"{host.name} is not as it should be: {'; '.join(problems)}",
            place=host.name,
            cure=f"ops driver status --limit {host.name}",
        )


KINDS = {
    "driver.drain": Drain,
    "driver.move": Move,
    "driver.prove": Prove,
    "driver.let_in": LetIn,
    "driver.inventory": WriteInventory,
}
