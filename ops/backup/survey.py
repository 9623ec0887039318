"""What hosts say of backups: how they are set up, what the repository has, how the cluster is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from shlex import quote
from typing import TYPE_CHECKING, Any

from ops.backup.listing import Listing
from ops.errors import OpsError
from ops.fleet.model import Fleet, Host
from ops.remote import connect, run

if TYPE_CHECKING:
    from fabric import Connection

PROGRAM = files("ops.backup").joinpath("host_program.py")
COMMAND = "/usr/local/lib/rackhand/backup"
WAL_RECEIVER = "/usr/local/lib/rackhand/wal_receiver"


@dataclass(frozen=True)
class Survey:
    """The data host's word.

    Attributes:
        host: The data host's name.
        config: How backups are set up there.
        listing: What the repository has.
        now: That host's clock.
        running: Whether PostgreSQL serves there.
        system: System identifier of the cluster there; 0 where there is none.
        cluster_bytes: What it takes on the disk.
        free_bytes: What its file system has left.
        wal_receiver: The host that receives WAL as it is written; empty where none does.
    """

    host: str
    config: Mapping[str, Any]
    listing: Listing
    now: datetime
    running: bool
    system: int
    cluster_bytes: int
    free_bytes: int
    wal_receiver: str = ""

    @property
    def runs_on(self) -> str:
        """The host that makes backups."""
        return str(self.config["repository_host"] or self.host)

    @property
    def ours(self) -> bool:
        """Whether the repository is of the cluster that is there, not of another."""
        backups = self.listing.backups
        return not backups or backups[-1].system == self.system


def ask(connection: Connection, host: Host, verb: str, **values: Any) -> dict[str, Any]:
    """Have the program of backups do something on a host.

    Raises:
        RemoteError: It could not.
    """
    return dict(json.loads(run(connection, host, command_of(verb, **values))))


def command_of(verb: str, **values: Any) -> str:
    """The program of backups with a verb, for a host's shell."""
    program = PROGRAM.read_text(encoding="utf-8")
    return f"python3 -c {quote(program)} {verb} {quote(json.dumps(values))}"


def survey(fleet: Fleet) -> Survey:
    """Ask the data host.

    Raises:
        OpsError: It has no backups set up, or its repository does not answer.
    """
    host = fleet.first("data")
    with connect(fleet, host) as connection:
        found = ask(connection, host, "survey")
    if not found["config"]:
        raise OpsError(
            f"{host.name} makes no backups",
            place=f"{host.name}: /etc/rackhand/backup.json",
            cure="ops provision --tags backup (backup_repository says where they go)",
        )
    if found["problem"]:
        raise OpsError(
            f"the repository does not answer: {found['problem']}",
            place=host.name,
            cure="docs/backup.md, 'When the repository does not answer'",
        )
    return Survey(
        host=host.name,
        config=found["config"],
        listing=Listing.parse(found["info"], found["timeline"], found["history"]),
        now=datetime.fromtimestamp(found["now"], UTC),
        running=found["running"],
        system=int(found["system"]),
        cluster_bytes=int(found["cluster_bytes"]),
        free_bytes=int(found["free_bytes"]),
        wal_receiver=found["wal_receiver"],
    )


def hosts_with_files(fleet: Fleet, found: Survey) -> list[str]:
    """Hosts that back files up, by their own configuration."""
    names = []
    for host in fleet.hosts:
        if host.name == found.host or host.groups & {"edge", "monitoring"}:
            with connect(fleet, host) as connection:
                timer = "systemctl is-enabled rackhand-backup-files.timer 2>/dev/null || true"
                if run(connection, host, timer).strip() == "enabled":
                    names.append(host.name)
    return names


def snapshots(fleet: Fleet) -> list[dict[str, Any]]:
    """The backups of files, oldest first: host, time, paths, tags.

    Raises:
        RemoteError: The repository does not answer.
    """
    host = fleet.first("data")
    with connect(fleet, host) as connection:
        found = json.loads(run(connection, host, f"{COMMAND} restic --quiet snapshots --json"))
    return [
        {
            "id": one["short_id"],
            "time": one["time"],
            "host": one["hostname"],
            "paths": one["paths"],
            "tags": one.get("tags") or [],
        }
        for one in found or []
    ]
