"""The steps of a reboot: out of traffic, boot, proof, back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ops.app import edge
from ops.app.host import AppHost
from ops.app.state import instances_on
from ops.engine import traffic
from ops.errors import NotIdleError, OpsError, RemoteError
from ops.fleet.model import Fleet, Host
from ops.live.watch import survey
from ops.operations.plan import Step
from ops.operations.together import together
from ops.operations.work import Context
from ops.remote import connect, run

BOOT_ID = "/proc/sys/kernel/random/boot_id"
BOOTED = "timeout {seconds} systemctl is-system-running --wait >/dev/null || true"
"""Until then a unit that is not active may only be waiting for its turn."""
ORDER = (
    '[ "$(systemctl is-system-running)" = stopping ] || '
    "systemd-run --quiet --collect --on-active=1 systemctl reboot"
)
"""A moment later, so that the command that orders it ends in order."""
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

    @contextmanager
    def perhaps_cut(self) -> Iterator[None]:
        """Go on without requests that do not end, where the plan says so."""
        try:
            yield
        except NotIdleError as error:
            if not self.values.get("cut"):
                raise
            self.context.say(f"{error.message}: they are cut")

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
                with self.perhaps_cut():
                    app.wait_idle(instance, patience)
            if "gpu" not in host.groups:
                return
            reason = f"operation {self.context.operation}"
            left = traffic.drain(connection, host, reason, patience, self.context.say)
        with self.perhaps_cut():
            end_of_drain(host, left, patience)


class Reboot(HostStep):
    """The hosts have booted since the operation came to them."""

    def do(self) -> None:
        if "boots" not in self.detail:
            self.detail["boots"] = {host.name: self._boot(host) for host in self.hosts}
            self.context.note(self.detail)
        self.each(self._reboot)

    def _reboot(self, host: Host) -> None:
        if self._has_booted(host):
            return
        self._order(host)
        deadline = time.monotonic() + self.seconds("reboot")
        while not self._has_booted(host):
            if time.monotonic() > deadline:
                raise OpsError(
                    f"{host.name} was told to reboot and still has not after "
                    f"{self.seconds('reboot'):.0f} s",
                    place=host.name,
                    cure="look at its console; when it is back: ops resume",
                )
            time.sleep(POLL_SECONDS)

    def _order(self, host: Host) -> None:
        with connect(self.fleet, host) as connection:
            run(connection, host, ORDER)

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


def end_of_drain(host: Host, left: int, patience: float) -> None:
    """Judge what is left when the time for requests under way is over.

    Raises:
        NotIdleError: Some have not ended.
    """
    if left:
        raise NotIdleError(
            f"{left} request(s) of {host.name} did not end in {patience:.0f} s",
            place=host.name,
            cure="run it again with a longer --drain-timeout",
        )


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
