"""The step that brings secrets to a stage: first in the store, then on the hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ops.app.plan import Choices, restart_steps
from ops.app.state import Instance
from ops.errors import OpsError
from ops.operations.plan import Step
from ops.operations.work import Context, make_work
from ops.places import ROOT
from ops.playbook import run_playbook
from ops.secrets.rotation import move
from ops.secrets.vault import store_of, told

PLAYBOOK = ROOT / "playbooks" / "secrets.yml"


class Stage:
    """Secrets have a stage, here and on the hosts that the step's layers name.

    The stage is written first: a playbook that dies half way is run again, and what it lays down
    holds at every moment between, as both values are taken.
    """

    def __init__(self, context: Context, step: Step, _detail: Mapping[str, Any]) -> None:
        self._context = context
        self._values = step.values

    def do(self) -> None:
        """Bring it about, from whatever stage is there."""
        self._bring(str(self._values["to"]))

    def holds(self) -> bool:
        """Not known: it bears repetition."""
        return False

    def undo(self) -> None:
        """Bring the stage before back; instances that may show the new value restart."""
        self._bring(str(self._values["before"]))
        instances = [Instance(**found) for found in self._values["instances"]]
        choices = Choices(
            drain_seconds=float(self._values["drain_seconds"]),
            ready_seconds=float(self._values["ready_seconds"]),
        )
        for step in restart_steps(instances, choices):
            self._context.say(step.title)
            make_work(self._context, step, {}).do()

    def _bring(self, stage: str) -> None:
        inventory = self._context.fleet.inventory
        with told(), store_of(inventory).changing() as entries:
            move(entries, self._values["fingerprints"], stage)
        layers = self._values["layers"]
        if not layers:
            return
        variables = {"fleet_operation": self._context.operation}
        arguments = ["--tags", ",".join(layers), "-e", json.dumps(variables)]
        _status, progress = run_playbook(PLAYBOOK, inventory, arguments=arguments)
        for failure in progress.failures:
            raise OpsError(
                f"{failure.host}: {failure.message}",
                place=f"{failure.host}, {failure.role}: {failure.task}",
            )


KINDS = {"secrets.stage": Stage}
