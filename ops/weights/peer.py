"""One host hands a revision to another, over their own network: a server and a fetcher."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from ops.errors import OpsError
from ops.fleet.model import Fleet, Host
from ops.remote import connect, pipe, run
from ops.weights.job import LOADER, make_job

PORT = 8400
"""On the private address, only while weights are spread (docs/architecture.md)."""
UNIT = "rackhand-weights.service"
FOLDER = "/run/rackhand-weights"
TLS = "/etc/rackhand/tls"
IDLE_SECONDS = 600
MOST_SECONDS = 6 * 3600
PROPERTIES = (
    "Type=notify",  # started means: it listens
    "TimeoutStartSec=30",
    "DynamicUser=yes",
    f"LoadCredential=job:{FOLDER}/job",
    f"LoadCredential=key:{TLS}/host.key",
    f"RuntimeMaxSec={MOST_SECONDS + 60}",
    # Whoever kills it only delays the others; its own deadline and RuntimeMaxSec do end it.
    "Restart=on-abort",
    "RestartSec=1",
    "IPAddressDeny=any",
    "UMask=0077",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "TasksMax=64",
    "MemoryMax=512M",
    # Beside engines that serve.
    "Nice=10",
    "CPUWeight=20",
    "IOWeight=20",
)


@dataclass(frozen=True)
class Parcel:
    """What is handed over.

    Attributes:
        path: Where the revision lies, on either host.
        digest: Of what its manifest lists, as the control machine knows it.
        token: Whoever knows it may fetch; new for every spreading.
    """

    path: str
    digest: str
    token: str


def unit_command(address: str, peers: Sequence[str], path: str) -> str:
    """Return the shell command that starts the server; its job comes by standard input."""
    words = [f"--property={value}" for value in PROPERTIES]
    words += [f"--property=IPAddressAllow={peer}" for peer in peers]
    words += [f"--description=Hands out {path} at {address}"]
    start = ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", *words]
    command = " ".join(map(quote, [*start, "/usr/bin/python3", "-c", LOADER]))
    why = f"{{ journalctl --no-pager -o cat -n 5 -u {UNIT}; exit 1; }}"
    put = f"umask 077 && mkdir -p {FOLDER} && cat > {FOLDER}/job"
    return f"{stop_command()}; {put} && {command} || {why}"


def stop_command() -> str:
    """Return the shell command after which no server runs and no token lies about."""
    return (
        f"systemctl stop {UNIT} 2>/dev/null; systemctl reset-failed {UNIT} 2>/dev/null; "
        f"rm -rf {FOLDER}"
    )


def serve(fleet: Fleet, host: Host, parcel: Parcel, peers: Sequence[Host]) -> None:
    """Have a host hand a revision to its peers, until `stop`, or until nobody asks.

    Raises:
        OpsError: The server does not start.
        RemoteError: The host cannot be reached.
    """
    addresses = [peer.private_address for peer in peers]
    values = {
        "address": host.private_address,
        "port": PORT,
        "path": parcel.path,
        "token": parcel.token,
        "allowed": addresses,
        "certificate": f"{TLS}/host.crt",
        "idle_seconds": IDLE_SECONDS,
        "deadline": time.time() + MOST_SECONDS,
    }
    said: list[str] = []
    command = unit_command(host.private_address, addresses, parcel.path)
    with connect(fleet, host) as connection:
        job = make_job("serve_program.py", values)
        if pipe(connection, host, command, job, said.append):
            raise OpsError(
                f"{host.name} cannot hand out {parcel.path}: {' '.join(said)[-2000:]}",
                place=f"{host.name}: {UNIT}",
                cure="--no-spread has every host fetch for itself",
            )


def stop(fleet: Fleet, host: Host) -> None:
    """End a host's server."""
    with connect(fleet, host) as connection:
        run(connection, host, f"{stop_command()}; true")


def fetch(
    fleet: Fleet, target: Host, source: Host, parcel: Parcel, heard: Callable[[int, int], None]
) -> None:
    """Bring a revision from one host to another, wherever an earlier try ended.

    Args:
        fleet: The fleet.
        target: Gets it.
        source: Has it, and a server.
        parcel: What.
        heard: Told bytes that are there, and of how many.

    Raises:
        OpsError: It cannot be had from there.
        RemoteError: The line to the target broke; what it has stays.
    """
    values = {
        "host": source.private_address,
        "port": PORT,
        "path": parcel.path,
        "digest": parcel.digest,
        "token": parcel.token,
        "ca_file": f"{TLS}/ca.crt",
        "pause": 1.0,
    }
    last: dict[str, Any] = {}
    words: list[str] = []

    def read(line: str) -> None:
        try:
            last.update(json.loads(line))
        except ValueError:
            words.append(line)
            return
        heard(int(last["have"]), int(last["of"]))

    command = f"python3 -c {quote(LOADER)}"
    with connect(fleet, target) as connection:
        job = make_job("fetch_program.py", values)
        status = pipe(connection, target, command, job, read, stays=True)
    if not last.get("complete"):
        why = last.get("refused") or " ".join(words)[-1000:] or f"it ended with status {status}"
        raise OpsError(f"{target.name} from {source.name}: {why}", place=f"{target.name}:{PORT}")
