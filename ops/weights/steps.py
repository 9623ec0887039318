"""The steps that bring weights, and the one that removes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ops.errors import OpsError
from ops.fleet.model import Host
from ops.operations.plan import Step
from ops.operations.work import Context, host_of
from ops.places import ROOT
from ops.playbook import run_playbook
from ops.weights import shelf
from ops.weights.plan import GIB, Wanted, require_room
from ops.weights.prune import STAGING_SECONDS
from ops.weights.spread import Spreading

PLAYBOOK = ROOT / "playbooks" / "engine_slot.yml"


class WeightsStep:
    """What all of them have. Weights that nobody serves are in nobody's way: nothing is undone."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        del detail
        self.context = context
        self.step = step
        self.values = step.values

    @property
    def hosts(self) -> list[Host]:
        """The hosts that the step is about."""
        return [self.context.fleet.host(name) for name in self.values["hosts"]]

    def holds(self) -> bool:
        """Not known: do it again; it finds what is there."""
        return False

    def undo(self) -> None:
        """Nothing to bring back: what arrived shortens the next try."""


class Room(WeightsStep):
    """Every host can take the weights, looked at before the first byte moves."""

    def do(self) -> None:
        wanted = Wanted(self.values["model"], self.values["entry"], int(self.values["size"]))
        require_room(wanted, shelf.survey(self.context.fleet, self.hosts))


class Fetch(WeightsStep):
    """Weights come from their source, and the environment is built; no setting changes."""

    def do(self) -> None:
        candidate = {
            "name": self.values["model"],
            "entry": dict(self.values["entry"]),
            "stage_only": True,
        }
        variables = {"engine_candidate": candidate, "fleet_operation": self.context.operation}
        hosts = ",".join(self.values["hosts"])
        arguments = ["--limit", hosts, "-e", json.dumps(variables)]
        _status, progress = run_playbook(
            PLAYBOOK, self.context.fleet.inventory, arguments=arguments
        )
        if progress.failures:
            raise OpsError(
                "\n".join(f"{f.host}: {f.message}" for f in progress.failures),
                place=", ".join(f"{f.host}, {f.role}: {f.task}" for f in progress.failures),
                cure="what arrived stays: the same command again goes on with it",
            )


class Spread(WeightsStep):
    """Hosts get the weights from hosts that have them."""

    def do(self) -> None:
        sources = [self.context.fleet.host(name) for name in self.values["sources"]]
        self._spreading().run(sources, self.hosts)

    def undo(self) -> None:
        """No server is left behind by whoever died."""
        names = dict.fromkeys([*self.values["sources"], *self.values["hosts"]])
        self._spreading().stop([self.context.fleet.host(name) for name in names])

    def _spreading(self) -> Spreading:
        revision = self.values["entry"]["revision"]
        return Spreading(self.context.fleet, self.values["model"], str(revision), self.context.say)


class Prune(WeightsStep):
    """Weights and environments that nobody needs are gone; the host looks once more itself."""

    def do(self) -> None:
        host = host_of(self.context, self.step)
        found = shelf.call(
            self.context.fleet, host, "remove",
            paths=list(self.values["paths"]), young=STAGING_SECONDS,
        )  # fmt: skip
        for path, why in found["kept"].items():
            self.context.say(f"{host.name}: {path} stays after all: it {why}")
        self.context.say(f"{host.name}: freed {found['freed'] / GIB:.2f} GiB")

    def undo(self) -> None:
        """What is gone is gone."""
        self.context.say(f"{self.step.host}: what was removed stays so; ops model stage brings it")


KINDS = {
    "weights.room": Room,
    "weights.fetch": Fetch,
    "weights.spread": Spread,
    "weights.prune": Prune,
}
