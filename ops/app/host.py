"""The app on one host, acted on over SSH: units, releases, configuration, proof of life."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from shlex import quote
from typing import TYPE_CHECKING, Any

from ops.errors import NotIdleError, OpsError
from ops.fleet.model import Host
from ops.remote import run

if TYPE_CHECKING:
    from fabric import Connection

    from ops.app.state import Instance

PROGRAM = files("ops.app").joinpath("instance_program.py")
POLL_SECONDS = 0.5
LAST_LINES = 20
DEATHS = 3
"""Starts that may fail before an instance counts as one that cannot start."""
Say = Callable[[str], None]


class AppHost:
    """Acts on the app on one host.

    Args:
        connection: An open connection to the host.
        host: The host.
        say: Told what goes on.
    """

    def __init__(self, connection: Connection, host: Host, say: Say = lambda _: None) -> None:
        self._connection = connection
        self._host = host
        self._say = say

    def survey(self, ports: Sequence[int]) -> dict[str, Any]:
        """What the host says of the app: releases, instances, fact, configuration."""
        return self._call("survey", ports=list(ports))

    def set_release(self, instance: Instance, release: str) -> None:
        """Have an instance run a release from its next start on."""
        self._call("set_release", port=instance.port, release=release)

    def set_current(self, release: str, fact: Mapping[str, str]) -> None:
        """Have the host run a release, also its migration at boot, and say who put it there."""
        self._call("set_current", release=release, fact=dict(fact))
        # Not waited for: an operation has migrated the database, or goes back and leaves it ahead.
        self._run("systemctl restart --no-block agent_app_migrate@current.service")

    def set_config(self, before: str, after: str) -> None:
        """Write the configuration, unless somebody changed it since `before` was read."""
        self._call("set_config", before=before, after=after)

    def migrate(self, release: str, patience: float) -> None:
        """Bring the database to a release's shape.

        Raises:
            OpsError: It failed; the message ends with the unit's last lines.
        """
        unit = quote(f"agent_app_migrate@{release}.service")
        self._run(f"systemctl restart --no-block {unit}")
        deadline = time.monotonic() + patience
        while True:
            shown = self._run(f"systemctl show -p ActiveState,NRestarts {unit}")
            state = dict(line.split("=", 1) for line in shown.splitlines())
            if state["ActiveState"] == "active":
                break
            # It would be tried again and again, as at boot: here the first failure counts.
            failed = state["ActiveState"] == "failed" or state["NRestarts"] not in ("", "0")
            if failed or time.monotonic() > deadline:
                lines = self._lines(unit)
                self._end(unit)
                raise OpsError(
                    f"the database could not be migrated to {release}; the last lines:\n{lines}",
                    place=f"{self._host.name}: {unit}",
                    cure="mend the migration; migrations only add, so the old release serves on",
                )
            time.sleep(POLL_SECONDS)
        self._end(unit)

    def _end(self, unit: str) -> None:
        self._run(f"systemctl stop {unit}; systemctl reset-failed {unit} 2>/dev/null || true")

    def wait_idle(self, instance: Instance, patience: float) -> None:
        """Wait until nobody holds a connection to an instance that is out of the edge.

        Raises:
            NotIdleError: Somebody does, when the patience is over.
        """
        deadline, quiet = time.monotonic() + patience, 0
        while True:
            left = self._call("connections", port=instance.port)["count"]
            # Twice: the edge's old workers may be about to open one for a request they have read.
            quiet = quiet + 1 if not left else 0
            if quiet > 1:
                return
            if time.monotonic() > deadline:
                raise NotIdleError(
                    f"{left} connection(s) to {instance.unit} did not end in {patience:.0f} s",
                    place=self._host.name,
                    cure="run it again when they have, or with a longer --drain-timeout",
                )
            if left:
                self._say(f"{instance.unit}: {left} connection(s) left")
            time.sleep(POLL_SECONDS)

    def restart(self, instance: Instance) -> None:
        """Stop an instance to its end and have it start; `wait_ready` tells when it serves."""
        unit = quote(instance.unit)
        self._run(
            f"systemctl stop {unit}; systemctl reset-failed {unit} 2>/dev/null; "
            f"systemctl start --no-block {unit}"
        )

    def ensure_started(self, instance: Instance) -> None:
        """Have an instance start unless it runs."""
        self._run(f"systemctl start --no-block {quote(instance.unit)}")

    def wait_ready(self, instance: Instance, patience: float) -> None:
        """Wait until an instance says that it can serve.

        Raises:
            OpsError: It does not in time, or cannot start; the message ends with its last lines.
        """
        began, first = time.monotonic(), -1
        while True:
            state = self.look_at(instance)
            first = state["restarts"] if first < 0 else first
            if state["active"] == "active" and not state["why"]:
                return
            if state["restarts"] - first >= DEATHS or state["active"] == "failed":
                raise self.dead(instance, f"{instance.unit} died while it started")
            if time.monotonic() - began > patience:
                why = state["why"] or state["active"]
                raise self.dead(
                    instance, f"{instance.unit} did not get ready in {patience:.0f} s: {why}"
                )
            self._say(f"{instance.unit}: {state['why'][:120] or state['active']}")
            time.sleep(POLL_SECONDS)

    def complete(self, instance: Instance) -> None:
        """Have an instance answer a real request.

        Raises:
            RemoteError: It did not; the message says what came instead.
        """
        self._call("complete", port=instance.port, address=instance.address)

    def look_at(self, instance: Instance) -> dict[str, Any]:
        """An instance's unit, its restarts, and why it is not ready; empty if it is."""
        return self._call("look_at", port=instance.port, address=instance.address)

    def dead(self, instance: Instance, why: str) -> OpsError:
        """An error about an instance, with its last lines."""
        return OpsError(
            f"{why}; its last lines:\n{self._lines(quote(instance.unit))}",
            place=f"{self._host.name}: {instance.unit}",
            cure=f"journalctl -u {instance.unit}",
        )

    def _lines(self, unit: str) -> str:
        return self._run(f"journalctl --no-pager -o cat -n {LAST_LINES} -u {unit}")

    def _call(self, verb: str, **values: Any) -> dict[str, Any]:
        program = PROGRAM.read_text(encoding="utf-8")
        command = f"python3 -c {quote(program)} {verb} {quote(json.dumps(values))}"
        return dict(json.loads(self._run(command)))

    def _run(self, command: str) -> str:
        return run(self._connection, self._host, command)
