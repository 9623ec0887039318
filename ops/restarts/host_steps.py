"""The steps of a reboot: out of traffic, boot, proof, back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ops.app import edge
from ops.app.host import AppHost
from ops.app.state import instances_on
from ops.engine import traffic
from ops.errors import OpsError, RemoteError
from ops.fleet.model import Fleet, Host
from ops.live.watch import survey
from ops.operations.plan import Step
from ops.operations.together import together
from ops.operations.work import Context
from ops.places import ROOT
from ops.playbook import run_playbook
from ops.remote import connect, run

PLAYBOOK = ROOT / "playbooks" / "reboot.yml"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
BOOTED = "timeout {seconds} systemctl is-system-running --wait >/dev/null || true"
"""Until then a unit that is not active may only be waiting for its turn."""
POLL_SECONDS = 2.0


class HostStep:
    """What all of them have: hosts, and what the step noted."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        self.context = context
        self.fleet = context.fleet
        self.values = step.values
        self.detail = dict(detail)

    @property
    def hosts(self) -> list[Host]:
        """The hosts that the step is about."""
        return [self.fleet.host(name) for name in self.values["hosts"]]

    def each(self, act: Callable[[Host], None]) -> None:
        """Act on all at once; one that fails does not keep the others."""
        together(self.hosts, act)

    def seconds(self, name: str) -> float:
        """One of the step's bounds."""
        return float(self.values[f"{name}_seconds"])

    def holds(self) -> bool:
        """Not known: do it again."""
        return False

    def undo(self) -> None:
        """Nothing to bring back."""

    def prove(self, host: Host) -> None:
        """Wait until a host's units run and its engines make tokens.

        Raises:
            OpsError: They do not in time.
        """
        deadline = time.monotonic() + self.seconds("ready")
        with connect(self.fleet, host) as connection:
            run(connection, host, BOOTED.format(seconds=int(self.seconds("ready"))))
        while ill := _unwell(self.fleet, host):
            if time.monotonic() > deadline:
                raise OpsError(
                    f"{host.name} is not as it should be and stays out of traffic: {ill}",
                    place=host.name,
                    cure="ops status; when it is mended: ops resume",
                )
            self.context.say(f"{host.name}: {ill}")
            time.sleep(POLL_SECONDS)
        with connect(self.fleet, host) as connection:
            slots = traffic.active_slots(connection, host)
            traffic.wait_until_ready(
                connection, host, slots, self.seconds("ready"), self.context.say
            )

    def let_in(self, host: Host) -> None:
        """Put a host back into traffic: engines first, without which no instance gets ready.

        Raises:
            OpsError: An instance did not get ready; it stays out.
        """
        with connect(self.fleet, host) as connection:
            traffic.undrain(connection, host)
            app = AppHost(connection, host, self.context.say)
            for instance in instances_on(self.fleet, host):
                app.wait_ready(instance, self.seconds("ready"))
                edge.put_in(self.fleet, instance.backend)


class Drain(HostStep):
    """No new request comes to the hosts, and those under way have ended."""

    def do(self) -> None:
        self.each(self._drain)

    def undo(self) -> None:
        self.each(self._bring_back)

    def _bring_back(self, host: Host) -> None:
        self.prove(host)
        self.let_in(host)

    def _drain(self, host: Host) -> None:
        patience = self.seconds("drain")
        here = instances_on(self.fleet, host)
        # Instances first: what they have begun needs an engine, perhaps this host's.
        for instance in here:
            edge.take_out(self.fleet, instance.backend)
        with connect(self.fleet, host) as connection:
            app = AppHost(connection, host, self.context.say)
            for instance in here:
                app.wait_idle(instance, patience)
            if "gpu" not in host.groups:
                return
            reason = f"operation {self.context.operation}"
            left = traffic.drain(connection, host, reason, patience, self.context.say)
        if left:
            raise OpsError(
                f"{left} request(s) of {host.name} did not end in {patience:.0f} s",
                place=host.name,
                cure="run it again with a longer --drain-timeout",
            )


class Reboot(HostStep):
    """The hosts have booted since the operation came to them."""

    def do(self) -> None:
        if "boots" not in self.detail:
            self.detail["boots"] = {host.name: self._boot(host) for host in self.hosts}
            self.context.note(self.detail)
        waiting = [host.name for host in self.hosts if not self._has_booted(host)]
        if not waiting:
            return
        variables = {
            "fleet_operation": self.context.operation,
            "fleet_reboot_timeout_s": int(self.seconds("reboot")),
        }
        arguments = ["--limit", ",".join(waiting), "-e", json.dumps(variables)]
        _status, progress = run_playbook(PLAYBOOK, self.fleet.inventory, arguments=arguments)
        for failure in progress.failures:
            raise OpsError(
                f"{failure.host} did not come back: {failure.message}",
                place=failure.host,
                cure="look at its console; when it is back: ops resume",
            )

    def holds(self) -> bool:
        """Whether each has booted since; a death in between reboots nobody twice."""
        return "boots" in self.detail and all(self._has_booted(host) for host in self.hosts)

    def _has_booted(self, host: Host) -> bool:
        before = self.detail["boots"].get(host.name)
        return bool(before) and self._boot(host) != before

    def _boot(self, host: Host) -> str:
        """Name the boot; one that is under way is waited for."""
        deadline = time.monotonic() + self.seconds("reboot")
        while True:
            try:
                with connect(self.fleet, host) as connection:
                    return run(connection, host, f"cat {BOOT_ID}").strip()
            except RemoteError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)


class Prove(HostStep):
    """Their units run, their engines make tokens."""

    def do(self) -> None:
        self.each(self._prove)

    def _prove(self, host: Host) -> None:
        self.prove(host)


class LetIn(HostStep):
    """They get requests again. Nothing to bring back: they serve."""

    def do(self) -> None:
        self.each(self.let_in)


def _unwell(fleet: Fleet, host: Host) -> str:
    """What of a host's units does not run, or not yet; empty if all do."""
    (state,) = survey(fleet, host).hosts
    return state.problem or ", ".join(f"{unit} {now}" for unit, now in state.unwell.items())


KINDS = {
    "host.drain": Drain,
    "host.reboot": Reboot,
    "host.prove": Prove,
    "host.let_in": LetIn,
}
