"""Take a host out of traffic and put it back, seen from the host itself.

The host's engine proxy refuses new requests with 503 while a file is there (role engine_proxy), so
that the app sends them to another host; what is under way goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from ops.errors import RemoteError
from ops.fleet.model import Host
from ops.remote import run

if TYPE_CHECKING:
    from fabric import Connection

DRAINED = "/var/lib/rackhand/drained"
POLL_SECONDS = 1.0
PROBE_SECONDS = 60  # one token, on the slowest host
Say = Callable[[str], None]

#: Sums vLLM's gauges of running and waiting requests over the ports given; an engine that does not
#: answer has none. Standard library of the host's own Python: a server need not have curl.
COUNT = """
import re, sys, urllib.request
total = 0
for port in sys.argv[1:]:
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read()
    except OSError:
        continue
    gauge = r"^vllm:num_requests_(?:running|waiting){[^}]*} ([0-9.e+]+)"
    found = re.findall(gauge, page.decode(), re.M)
    total += sum(int(float(value)) for value in found)
print(total)
"""

#: Asks each engine for one token: its port, its model.
PROBE = """
import json, sys, urllib.request
for port, model in zip(sys.argv[2::2], sys.argv[3::2]):
    body = json.dumps({"model": model, "prompt": "ping", "max_tokens": 1}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=float(sys.argv[1])) as answer:
        json.load(answer)["choices"][0]
"""


@dataclass(frozen=True)
class Slot:
    """An engine of a host: its model, its slot and its loopback port."""

    model: str
    name: str
    port: int

    @property
    def unit(self) -> str:
        """The systemd unit that runs it."""
        return f"engine@{self.model}-{self.name}.service"


def active_slots(connection: Connection, host: Host) -> tuple[Slot, ...]:
    """Return the slots that serve, as the host's fact file has them."""
    output = run(connection, host, "cat /etc/ansible/facts.d/engine.fact 2>/dev/null || echo '{}'")
    facts = json.loads(output).get("models", {})
    return tuple(
        Slot(model.name, facts[model.name]["active"], model.slot_port(facts[model.name]["active"]))
        for model in host.models
        if model.name in facts
    )


def drain(
    connection: Connection, host: Host, reason: str, patience: float, say: Say = lambda _: None
) -> int:
    """Refuse new requests and wait until those under way have ended.

    Args:
        connection: An open connection to the host.
        host: The host.
        reason: Who drains it and why, for whoever finds the file.
        patience: Seconds to wait.
        say: Told how many requests are left.

    Returns:
        Requests still under way when the patience was over; 0 when all have ended.
    """
    folder = DRAINED.rpartition("/")[0]
    run(connection, host, f"mkdir -p {folder} && printf '%s\\n' {quote(reason)} > {DRAINED}")
    ports = [str(slot.port) for slot in active_slots(connection, host)]
    end = time.monotonic() + patience
    quiet = 0
    while True:
        left = requests_under_way(connection, host, ports)
        # Twice: a request that the proxy let in just before may not have reached the engine.
        quiet = quiet + 1 if left == 0 else 0
        if quiet > 1 or time.monotonic() >= end:
            return left
        if left:
            say(f"{left} request(s) under way")
        time.sleep(POLL_SECONDS)


def requests_under_way(connection: Connection, host: Host, ports: list[str]) -> int:
    """Count the requests that the engines at these ports run or have queued."""
    return int(run(connection, host, f"python3 -c {quote(COUNT)} {' '.join(ports)}"))


def undrain(connection: Connection, host: Host) -> None:
    """Let new requests in again."""
    run(connection, host, f"rm -f {DRAINED}")


def drained(connection: Connection, host: Host) -> str:
    """Return why a host is drained, empty when it is not."""
    return run(connection, host, f"cat {DRAINED} 2>/dev/null || true").strip()


def stop(connection: Connection, host: Host, slots: tuple[Slot, ...]) -> None:
    """Stop engines in order, so that nothing holds a GPU."""
    if slots:
        run(connection, host, f"systemctl stop {' '.join(quote(slot.unit) for slot in slots)}")


def start(connection: Connection, host: Host, slots: tuple[Slot, ...]) -> None:
    """Start engines; `wait_until_ready` tells when they answer."""
    if slots:
        units = " ".join(quote(slot.unit) for slot in slots)
        run(connection, host, f"systemctl start --no-block {units}")


def wait_until_ready(
    connection: Connection,
    host: Host,
    slots: tuple[Slot, ...],
    patience: float,
    say: Say = lambda _: None,
) -> None:
    """Wait until each engine has made a token.

    Raises:
        RemoteError: One did not in time; the message ends with its unit's last lines.
    """
    end = time.monotonic() + patience
    words = " ".join(f"{slot.port} {quote(slot.model)}" for slot in slots)
    while slots:
        try:
            run(connection, host, f"python3 -c {quote(PROBE)} {PROBE_SECONDS} {words}")
            return
        except RemoteError as problem:
            if time.monotonic() >= end:
                units = " ".join(f"-u {quote(slot.unit)}" for slot in slots)
                lines = run(connection, host, f"journalctl --no-pager -o cat -n 12 {units}")
                raise RemoteError(
                    f"the engines of {host.name} did not answer within {patience:.0f} s:\n{lines}",
                    place=f"{host.name}: {', '.join(slot.unit for slot in slots)}",
                    cure=f"journalctl {units}",
                ) from problem
        say("waiting for the engines")
        time.sleep(POLL_SECONDS)
