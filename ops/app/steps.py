"""The steps that move the app: each brings something about and can undo it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.app import edge
from ops.app.config import Bounds, with_bounds
from ops.app.host import AppHost
from ops.app.judge import judge
from ops.app.state import Instance
from ops.errors import OpsError
from ops.operations.plan import Step
from ops.operations.together import together
from ops.operations.work import Context, host_of
from ops.places import ROOT
from ops.playbook import run_playbook
from ops.remote import connect

PLAYBOOK = ROOT / "playbooks" / "app_release.yml"
WATCH_SECONDS = 1.0
MIGRATE_SECONDS = 600.0


class AppStep:
    """What all of them have: the step's values, and hosts to act on."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        self.context = context
        self.fleet = context.fleet
        self.host = host_of(context, step)
        self.values = step.values
        self.detail = dict(detail)

    @contextmanager
    def on(self, name: str = "") -> Iterator[AppHost]:
        """Open a host, by default the step's."""
        host = self.fleet.host(name) if name else self.host
        with connect(self.fleet, host) as connection:
            yield AppHost(connection, host, self.context.say)

    def holds(self) -> bool:
        """Not known: do it again, which every step can bear."""
        return False

    def undo(self) -> None:
        """Nothing to bring back."""


class Build(AppStep):
    """A release lies on the host, complete. Undone by nothing: unused."""

    def do(self) -> None:
        source, release = Path(str(self.values["source"])), str(self.values["release"])
        variables = {
            "agent_app_candidate": True,
            "agent_app_source": str(source),
            "fleet_operation": self.context.operation,
        }
        arguments = ["--limit", self.host.name, "-e", json.dumps(variables)]
        _status, progress = run_playbook(PLAYBOOK, self.fleet.inventory, arguments=arguments)
        for failure in progress.failures:
            raise OpsError(
                f"{failure.host}: {failure.message}",
                place=f"{failure.host}, {failure.role}: {failure.task}",
            )
        with self.on() as app:
            if release not in app.survey([])["releases"]:
                raise OpsError(
                    f"{self.host.name} has no release {release} after its build",
                    place=str(source),
                    cure="the checkout changed meanwhile: ops abort, and deploy what it has now",
                )


class Migrate(AppStep):
    """The database has a release's shape. Undone by nothing: migrations only add."""

    def do(self) -> None:
        with self.on() as app:
            app.migrate(str(self.values["release"]), MIGRATE_SECONDS)


class Cycle(AppStep):
    """Instances are taken out of the edge, changed, restarted, proven and put back, all at once."""

    def do(self) -> None:
        together(self._instances(), lambda one: self._cycle(one, self.values["to"]))

    def undo(self) -> None:
        together(self._instances(), self._bring_back)

    def _instances(self) -> tuple[Instance, ...]:
        return tuple(Instance(**found) for found in self.values["instances"])

    def _cycle(self, instance: Instance, change: Mapping[str, Any]) -> None:
        edge.take_out(self.fleet, instance.backend)
        with self.on(instance.host) as app:
            app.wait_idle(instance, float(self.values["drain_seconds"]))
            self._change(app, instance, change)
            app.restart(instance)
            self._prove(app, instance)
        edge.put_in(self.fleet, instance.backend)

    def _bring_back(self, instance: Instance) -> None:
        """What was not to be changed is not restarted: it has to serve, and is put back."""
        if self.values["before"]:
            self._cycle(instance, self.values["before"])
            return
        with self.on(instance.host) as app:
            app.ensure_started(instance)
            self._prove(app, instance)
        edge.put_in(self.fleet, instance.backend)

    def _prove(self, app: AppHost, instance: Instance) -> None:
        app.wait_ready(instance, float(self.values["ready_seconds"]))
        if self.values["complete"]:
            app.complete(instance)

    def _change(self, app: AppHost, instance: Instance, change: Mapping[str, Any]) -> None:
        if "release" in change:
            app.set_release(instance, str(change["release"]))
        if "bounds" in change:
            before = app.survey([])["config"]
            bounds = Bounds(**change["bounds"])
            app.set_config(before, with_bounds(before, str(change["model"]), bounds))


class Watch(AppStep):
    """An instance does well for a while, by the edge's own log."""

    def do(self) -> None:
        instance = Instance(**self.values["instance"])
        log = edge.EdgeLog(self.fleet, instance.backend)
        deadline = time.monotonic() + float(self.values["seconds"])
        with self.on(instance.host) as app:
            restarts = app.look_at(instance)["restarts"]
            while time.monotonic() < deadline:
                time.sleep(min(WATCH_SECONDS, max(0.0, deadline - time.monotonic())))
                log.read()
                state = app.look_at(instance)
                if state["restarts"] > restarts or state["active"] != "active":
                    raise app.dead(instance, f"{instance.unit} died while it served")
                if why := judge(log.watched, log.others, float(self.values["max_error_share"])):
                    raise OpsError(
                        f"{instance.unit} is over its budget: {why}", place=instance.host
                    )
        self.context.say(f"{log.watched.requests} requests, {log.watched.failed} failed")


class Commit(AppStep):
    """The host says that a release is the one it runs, also after a reboot."""

    def do(self) -> None:
        release = str(self.values["release"])
        with self.on() as app:
            there = app.survey([])
            if "before" not in self.detail:
                self.detail["before"] = {key: there[key] for key in ("current", "fact")}
                self.context.note(self.detail)
            fact = {
                "release": release,
                "previous": str(self.values["previous"]),
                "operation": self.context.operation,
            }
            app.set_current(release, fact)

    def undo(self) -> None:
        if before := self.detail.get("before"):
            with self.on() as app:
                app.set_current(before["current"], before["fact"])


KINDS = {
    "app.build": Build,
    "app.migrate": Migrate,
    "app.cycle": Cycle,
    "app.watch": Watch,
    "app.commit": Commit,
}
