"""One model's slots on one host, acted on over SSH: traffic, units, proof of life."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from shlex import quote
from typing import TYPE_CHECKING, Any

from ops.engine.traffic import PROBE, PROBE_SECONDS
from ops.errors import NotIdleError, OpsError, RemoteError
from ops.fleet.model import SLOTS, Host, Model
from ops.places import ROOT
from ops.remote import run

if TYPE_CHECKING:
    from fabric import Connection

PROGRAM = files("ops.engine").joinpath("switch_program.py")
UPSTREAM = ROOT / "roles/engine_proxy/templates/host/etc/nginx/engine_proxy.d/upstream.conf.j2"
POLL_SECONDS = 1.0
LAST_LINES = 20
MANAGED = "Laid down by Rackhand; changes here are overwritten."
"""What the roles' `ansible_managed` says; a test holds both files against each other."""
STOP_UNLESS_ACTIVE = """
import json, subprocess, sys
model, slot, unit = sys.argv[1:]
fact = json.load(open("/etc/ansible/facts.d/engine.fact"))["models"].get(model, {})
if slot != fact.get("active") and not fact.get("traffic", {}).get(slot):
    subprocess.run(["systemctl", "stop", unit], check=True)
"""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for requests under way, and for an engine to answer."""

    drain: float = 330.0
    ready: float = 1800.0


@cache
def upstream_text(model: str, ports: tuple[tuple[str, int, int], ...]) -> str:
    """Return the upstream file as role `engine_proxy` renders it, to the byte.

    Args:
        model: Its name.
        ports: Slot, port and weight of each slot that gets traffic, by slot.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # noqa: S701 - an nginx file, no HTML
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    item = {
        "name": model,
        "upstream": "engine_" + model.replace("-", "_"),
        "servers": [{"slot": s, "port": p, "weight": w} for s, p, w in ports],
    }
    template = environment.from_string(UPSTREAM.read_text(encoding="utf-8"))
    return template.render(item=item, ansible_managed=MANAGED)


class Switchboard:
    """Acts on one model's slots on one host.

    Args:
        connection: An open connection to the host.
        host: The host.
        model: The model.
        say: Told what goes on.
    """

    def __init__(
        self, connection: Connection, host: Host, model: Model, say: Say = lambda _: None
    ) -> None:
        self._connection = connection
        self._host = host
        self._model = model
        self._say = say

    def unit(self, slot: str) -> str:
        """The systemd unit of a slot."""
        return f"engine@{self._model.name}-{slot}.service"

    def survey(self) -> dict[str, Any]:
        """What the host says of the model: fact, slots, memory, weights."""
        ports = {slot: self._model.slot_port(slot) for slot in SLOTS}
        return self._call("survey", ports=ports)

    def set_fact(self, **changes: Any) -> None:
        """Change what the host says of the model."""
        self._call("set_fact", changes=changes)

    def set_traffic(self, weights: Mapping[str, int]) -> None:
        """Give slots their shares of new requests; 0 gives none.

        Raises:
            RemoteError: nginx refused; nothing changed.
        """
        shares = {slot: weight for slot, weight in sorted(weights.items()) if weight}
        port = self._model.slot_port
        text = upstream_text(self._model.name, tuple((s, port(s), w) for s, w in shares.items()))
        self._call("set_traffic", weights=shares, upstream=text)

    def environment(self, slot: str) -> str:
        """The environment that a slot's settings name, such as `0.32.0-cuda`."""
        settings = quote(f"/etc/engine/{self._model.name}-{slot}.env")
        found = self._run(f"sed -n 's,^ENGINE_COMMAND=/opt/vllm/,,p' {settings}")
        return found.strip().partition("/")[0]

    def hold(self, reason: str) -> None:
        """Refuse new requests for the model on this host: the app holds on, or goes elsewhere."""
        self._call("set_held", reason=reason)

    def release(self) -> None:
        """Let requests in again."""
        self._call("set_held", reason="")

    def read_log(self, slot: str, offset: int) -> dict[str, Any]:
        """What a slot did since a place in the proxy's log; -1 asks for the place."""
        found = run(
            self._connection,
            self._host,
            self._command("read_log", {"port": self._model.slot_port(slot), "offset": offset}),
        )
        return dict(json.loads(found))

    def wait_idle(self, slot: str, patience: float) -> None:
        """Wait until a slot without traffic has ended what it had begun.

        Raises:
            NotIdleError: It has not, in time.
        """
        deadline, quiet = time.monotonic() + patience, 0
        while True:
            left = self.survey()["slots"][slot]["requests"]
            # Twice: a request that the proxy passed on just before may not have arrived.
            quiet = quiet + 1 if left <= 0 else 0
            if quiet > 1:
                return
            if time.monotonic() > deadline:
                raise NotIdleError(
                    f"{left} request(s) of {self.unit(slot)} did not end in {patience:.0f} s",
                    place=self._host.name,
                    cure="resume when they have, or with a longer --drain-timeout",
                )
            if left > 0:
                self._say(f"{left} request(s) under way")
            time.sleep(POLL_SECONDS)

    def start(self, slot: str, patience: float) -> None:
        """Start a slot and wait until its engine has made a token.

        Raises:
            OpsError: It died, or did not answer in time; the message ends with its last lines.
        """
        unit = quote(self.unit(slot))
        self._run(f"systemctl reset-failed {unit} 2>/dev/null; systemctl start --no-block {unit}")
        began, first = time.monotonic(), self._restarts(slot)
        words = f"{self._model.slot_port(slot)} {quote(self._model.name)}"
        while True:
            try:
                self._run(f"python3 -c {quote(PROBE)} {PROBE_SECONDS} {words}")
                return
            except RemoteError:
                waited = time.monotonic() - began
            state = self.survey()["slots"][slot]
            if state["restarts"] > first or state["active"] == "failed":
                raise self._dead(slot, f"{self.unit(slot)} died while it started")
            if waited > patience:
                raise self._dead(slot, f"{self.unit(slot)} did not answer in {patience:.0f} s")
            self._say(f"loading for {waited:.0f} s")
            time.sleep(POLL_SECONDS)

    def stop(self, slot: str) -> None:
        """Stop a slot; what it has begun may end within its shutdown timeout."""
        unit = quote(self.unit(slot))
        self._run(f"systemctl stop {unit}; systemctl reset-failed {unit} 2>/dev/null || true")

    def enable(self, slot: str, *, on: bool) -> None:
        """Have a slot come back after a reboot, or not."""
        self._run(f"systemctl {'enable' if on else 'disable'} -q {quote(self.unit(slot))}")

    def stop_later(self, slot: str, seconds: float) -> None:
        """Have the host itself stop a slot after a while, unless it serves by then."""
        self.keep(slot)
        timer, still = quote(self._timer(slot)), quote(STOP_UNLESS_ACTIVE)
        words = f"{quote(self._model.name)} {quote(slot)} {quote(self.unit(slot))}"
        self._run(
            f"systemd-run --quiet --unit {timer} --on-active={seconds:.0f}s "
            f"python3 -c {still} {words}"
        )

    def keep(self, slot: str) -> None:
        """Take back `stop_later`."""
        timer = quote(self._timer(slot))
        self._run(f"systemctl stop {timer}.timer {timer}.service 2>/dev/null || true")

    def last_lines(self, slot: str) -> str:
        """The end of a slot's journal."""
        return self._run(
            f"journalctl --no-pager -o cat -n {LAST_LINES} -u {quote(self.unit(slot))}"
        )

    def dead_while_serving(self, slot: str, why: str) -> OpsError:
        """An error about a slot, with its last lines."""
        return self._dead(slot, why)

    def _dead(self, slot: str, why: str) -> OpsError:
        return OpsError(
            f"{why}; its last lines:\n{self.last_lines(slot)}",
            place=f"{self._host.name}: {self.unit(slot)}",
            cure=f"ops lab ssh, or: journalctl -u {self.unit(slot)}",
        )

    def _restarts(self, slot: str) -> int:
        return int(self.survey()["slots"][slot]["restarts"])

    def _timer(self, slot: str) -> str:
        return f"engine-retires-{self._model.name}-{slot}"

    def _call(self, verb: str, **values: Any) -> dict[str, Any]:
        command = self._command(verb, {"model": self._model.name, **values})
        return dict(json.loads(self._run(command)))

    def _command(self, verb: str, values: Mapping[str, Any]) -> str:
        program = PROGRAM.read_text(encoding="utf-8")
        return f"python3 -c {quote(program)} {verb} {quote(json.dumps(values))}"

    def _run(self, command: str) -> str:
        return run(self._connection, self._host, command)
