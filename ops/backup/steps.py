# ruff: noqa: D102 - do, holds and undo are what ops/operations/work.py says
"""The steps of backups and restores: each brings something about, and a restore can be undone."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ops.app.host import AppHost
from ops.app.state import Instance, instances
from ops.backup.listing import stated
from ops.backup.plan import size
from ops.backup.survey import COMMAND, PROGRAM, WAL_RECEIVER, ask, command_of
from ops.errors import OpsError
from ops.operations.plan import Step
from ops.operations.work import Context, LastingError, host_of
from ops.remote import connect, pipe, run

if TYPE_CHECKING:
    from fabric import Connection

POLL_SECONDS = 1.0
INVENTORY = "inventory.tar"
LAST_LINES = 15


class BackupStep:
    """What all of them have: a host to act on."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        self.context = context
        self.host = host_of(context, step)
        self.values = step.values
        self.detail = dict(detail)

    @contextmanager
    def on(self) -> Iterator[Connection]:
        """Open the host."""
        with connect(self.context.fleet, self.host) as connection:
            yield connection

    def ssh(self, connection: Connection, command: str) -> str:
        """Run a command there."""
        return run(connection, self.host, command)

    def wait_for(self, connection: Connection, unit: str) -> None:
        """Start a unit that ends by itself, wait until it has.

        Raises:
            OpsError: It failed; the message ends with its last lines.
        """
        self.ssh(connection, f"systemctl reset-failed {unit} 2>/dev/null; "
                             f"systemctl start --no-block {unit}")  # fmt: skip
        began = time.monotonic()
        while True:
            time.sleep(POLL_SECONDS)
            shown = self.ssh(connection, f"systemctl show -p ActiveState,Result {unit}")
            state = dict(line.split("=", 1) for line in shown.split())
            if state["ActiveState"] in ("inactive", "failed"):
                break
            self.context.say(f"{unit}: {time.monotonic() - began:.0f} s")
        if state["Result"] != "success":
            lines = self.ssh(connection, f"journalctl --no-pager -o cat -n {LAST_LINES} -u {unit}")
            # It is told here and in the operation's journal, and nothing starts this unit again.
            self.ssh(connection, f"systemctl reset-failed {unit}")
            raise OpsError(
                f"{unit} failed; its last lines:\n{lines.strip()}",
                place=f"{self.host.name}: {unit}",
                cure=f"journalctl -u {unit}, then docs/backup.md",
            )

    def do(self) -> None:
        """Bring it about."""
        raise NotImplementedError

    def holds(self) -> bool:
        """Not known: do it again, which every step can bear."""
        return False

    def undo(self) -> None:
        """Nothing to bring back."""


class Run(BackupStep):
    """PostgreSQL is backed up. One more backup needs no undo."""

    def do(self) -> None:
        with self.on() as connection:
            self.wait_for(connection, f"rackhand-backup@{self.values['kind']}.service")
            # What failed before, of another kind, is made good by this one.
            self.ssh(connection, "systemctl reset-failed 'rackhand-backup@*' 2>/dev/null || true")


class StoreFiles(BackupStep):
    """The host's files are in the repository."""

    def do(self) -> None:
        with self.on() as connection:
            self.wait_for(connection, "rackhand-backup-files.service")


class StoreInventory(BackupStep):
    """The inventory with its secrets is in the repository: encrypted on its way to the disk."""

    def do(self) -> None:
        text = base64.b64encode(archive(self.context.fleet.inventory)).decode()
        store = (
            f"{COMMAND} restic --quiet backup --stdin --stdin-filename {INVENTORY} "
            "--tag inventory --host control"
        )
        said: list[str] = []
        with self.on() as connection:
            command = f"set -o pipefail; base64 -d | {store}"
            status = pipe(
                connection, self.host, f"bash -c {quote(command)}", text + "\n", said.append
            )
        if status:
            raise OpsError(
                "the inventory could not be stored: " + " ".join(said)[-1500:],
                place=self.host.name,
                cure=f"{COMMAND} restic snapshots on that host says more",
            )


class Flush(BackupStep):
    """What was committed is archived; where it cannot be, the old cluster still has it."""

    def do(self) -> None:
        with self.on() as connection:
            found = ask(connection, self.host, "flush")
        if not found["archived"]:
            raise OpsError(
                f"the last WAL could not be archived: {found['why']}",
                place=self.host.name,
                cure="ops doctor says why archiving fails; mend that first",
            )


class StopApp(BackupStep):
    """No instance of the app on the host runs; streams end within their drain time."""

    def do(self) -> None:
        with self.on() as connection:
            self.ssh(connection, "systemctl stop agent_app_retention.timer "
                                 "agent_app_retention.service 'agent_app@*'")  # fmt: skip

    def undo(self) -> None:
        with self.on() as connection:
            units = " ".join(one.unit for one in self.instances())
            self.ssh(connection, f"systemctl start --no-block agent_app_retention.timer {units}")

    def instances(self) -> tuple[Instance, ...]:
        """Those of the host."""
        return tuple(instances(self.context.fleet, (self.host.name,)))


class StartApp(StopApp):
    """The app runs on the restored database, which is brought to the release's shape first."""

    def do(self) -> None:
        patience = float(self.values["ready_seconds"])
        with self.on() as connection:
            self.ssh(connection, "systemctl restart --no-block agent_app_migrate@current.service")
            self.ssh(connection, "systemctl start agent_app_retention.timer")
            app = AppHost(connection, self.host, self.context.say)
            for instance in self.instances():
                app.ensure_started(instance)
            for instance in self.instances():
                try:
                    app.wait_ready(instance, patience)
                except OpsError as error:
                    # The database is back whatever else is not: an engine that is down is no
                    # reason to throw it away.
                    self.context.say(f"not ready yet: {str(error).splitlines()[0]}")

    def undo(self) -> None:
        """They stop, so that the cluster can be changed under them."""
        StopApp.do(self)


class BringWal(BackupStep):
    """WAL that this host received and the repository lacks lies where the recovery looks for it."""

    def do(self) -> None:
        system = str(self.values["system"])
        data = self.context.fleet.first("data")
        with self.on() as here, connect(self.context.fleet, data) as there:
            names = json.loads(self.ssh(here, f"{WAL_RECEIVER} list {system}"))
            for name in names:
                offered = self.ssh(here, f"{WAL_RECEIVER} offer {system} {name}")
                said: list[str] = []
                if pipe(there, data, command_of("take", name=name), offered, said.append):
                    raise OpsError(
                        f"{name} could not be brought: " + " ".join(said)[-1500:], place=data.name
                    )
        self.context.say(f"{len(names)} WAL file(s) that were not archived yet")


class Restore(BackupStep):
    """The cluster is the repository's, as far as the target says, and serves."""

    def do(self) -> None:
        program = PROGRAM.read_text(encoding="utf-8")
        operation = self.context.operation
        job = {"arguments": self.values["arguments"], "in_place": self.values["in_place"]}
        with self.on() as connection:
            state = ask(connection, self.host, "begin", operation=operation, program=program, **job)
            while state["active"]:
                self.context.say(progress(state, int(self.values["bytes"])))
                time.sleep(POLL_SECONDS)
                state = ask(connection, self.host, "look", operation=operation)
        record = state["record"]
        if not record.get("ended"):
            raise OpsError(
                f"the restore failed: {record.get('problem') or 'it was ended from outside'}",
                place=f"{self.host.name}: rackhand-restore-{operation}.service",
                cure="docs/backup.md, 'When a restore fails'",
            )
        found = {key: record.get(key) for key in ("recovered_to", "timeline", "seconds", "aside")}
        self.context.note(found)
        self.context.say(statement(found))

    def undo(self) -> None:
        with self.on() as connection:
            found = ask(connection, self.host, "undo", operation=self.context.operation)
        if found.get("lasting"):
            raise LastingError(found["lasting"], place=self.host.name)
        self.context.say(str(found["said"]))


class PutBackFiles(BackupStep):
    """Journals of operations and evals that the host lacks are there again; nothing is replaced."""

    def do(self) -> None:
        with self.on() as connection:
            self.context.say(
                str(ask(connection, self.host, "put_back_files", command=COMMAND)["said"])
            )


class Begin(BackupStep):
    """A new backup is under way, so that the next restore need not follow the way of this one."""

    def do(self) -> None:
        with self.on() as connection:
            self.ssh(connection, "systemctl start --no-block rackhand-backup@diff.service")


def archive(folder: Path) -> bytes:
    """An inventory, with what is hidden in it, as a tar; what is fetched anew is left out."""

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        skipped = (".keys", "__pycache__")
        return None if Path(entry.name).name in skipped else entry

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(folder, arcname=folder.name, filter=wanted)
    return out.getvalue()


def progress(state: Mapping[str, Any], whole: int) -> str:
    """How far a restore is, in words."""
    stage = state["record"].get("stage", "")
    if stage == "files":
        return f"{size(state['bytes'])} of {size(whole)} are back"
    return {"recovery": "PostgreSQL takes up the WAL"}.get(stage, "PostgreSQL stops")


def statement(found: Mapping[str, Any]) -> str:
    """The recovery point and the time taken, as they are told at the end."""
    took = f"restored in {float(found['seconds'] or 0):.0f} s"
    if not found["recovered_to"]:
        return f"{took}; nothing was committed after the backup"
    point = datetime.fromtimestamp(float(found["recovered_to"]), UTC)
    return f"{took}; the last transaction that is back was committed at {stated(point)}"


KINDS = {
    "backup.run": Run,
    "backup.store_files": StoreFiles,
    "backup.store_inventory": StoreInventory,
    "backup.flush": Flush,
    "backup.stop_app": StopApp,
    "backup.start_app": StartApp,
    "backup.bring_wal": BringWal,
    "backup.restore": Restore,
    "backup.put_back_files": PutBackFiles,
    "backup.begin": Begin,
}
