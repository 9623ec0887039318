"""What a backup and a restore will do, step by step. Pure: surveys in, plans out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ops.backup.listing import Backup, stated
from ops.backup.moment import for_postgres
from ops.backup.survey import Survey
from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet
from ops.operations.plan import Plan, Step

SPARE = 1.1
"""Room that a restore must find: the cluster's size by this."""
LATEST = "latest"
CURRENT_TIMELINE = "--recovery-option=recovery_target_timeline=current"
"""A backup as it was needs no way to the newest timeline, and may have none."""
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Target:
    """To where.

    Attributes:
        moment: A point in time, or None.
        label: A backup as it was when it ended, or empty.
    """

    moment: datetime | None = None
    label: str = ""

    @classmethod
    def of(cls, to: datetime | None, label: str) -> Target:
        """Read the options; neither, or `latest`, is all that the repository has.

        Raises:
            InputError: Both are given.
        """
        label = "" if label == LATEST else label
        if to is not None and label:
            raise InputError(
                "--to and --backup were given", cure="--to TIME alone finds its backup by itself"
            )
        return cls(to, label)


@dataclass(frozen=True)
class Choices:
    """How an operator wants it.

    Attributes:
        in_place: Over the old cluster, which is gone then; else that is kept aside.
        ready_seconds: How long an instance of the app may take to start.
        why: In the operator's words.
    """

    in_place: bool = False
    ready_seconds: float = 120.0
    why: str = ""


def plan_backup(found: Survey, file_hosts: Sequence[str], *, full: bool, why: str) -> Plan:
    """Plan a backup of everything.

    Args:
        found: The data host's word.
        file_hosts: Hosts that have files to back up.
        full: A full one whatever the last one's age.
        why: In the operator's words.

    Raises:
        OpsError: The repository is another cluster's.
    """
    if not found.ours:
        raise foreign(found)
    kind = "full" if full else "auto"
    word = "a full backup" if full else "a full backup where one is due, else what differs from it"
    steps = [Step("backup.run", found.runs_on, f"PostgreSQL: {word}", {"kind": kind})]
    steps += [
        Step("backup.store_files", name, f"{name}: files that no database has")
        for name in file_hosts
    ]
    steps.append(
        Step("backup.store_inventory", found.host, "the inventory and its secrets, encrypted")
    )
    return Plan(
        verb="backup run",
        subject=found.host,
        summary=(f"to {where(found)}; nothing is held up meanwhile",),
        steps=tuple(steps),
        warnings=unprotected(found),
        why=why,
    )


def plan_restore(fleet: Fleet, found: Survey, target: Target, choices: Choices) -> Plan:
    """Plan a restore of the cluster, and of files that the host lacks.

    Raises:
        InputError: The target is outside of what the repository can bring back.
        OpsError: There is no backup, or no room for one beside the cluster.
    """
    backup, arguments, words = _recovery(found, target)
    _check_room(found, backup, choices)
    hosts = [host.name for host in fleet.group("agent")]
    live = found.running and found.ours
    steps = [Step("backup.stop_app", name, f"{name}: the app ends what it does") for name in hosts]
    if live:
        steps.append(
            Step("backup.flush", found.host, "what was committed until now is archived as well")
        )
    elif found.wal_receiver and not target.label:
        system = {"system": backup.system}
        title = f"{found.wal_receiver}: WAL that it received and that was not archived"
        steps.append(Step("backup.bring_wal", found.wal_receiver, title, system))
    values: dict[str, Any] = {
        "arguments": arguments, "in_place": choices.in_place, "bytes": backup.cluster_bytes,
    }  # fmt: skip
    steps.append(Step("backup.restore", found.host, f"PostgreSQL: {words}", values))
    steps.append(Step("backup.put_back_files", found.host, "files that the host lacks come back"))
    ready = {"ready_seconds": choices.ready_seconds}
    steps += [Step("backup.start_app", name, f"{name}: the app serves", ready) for name in hosts]
    steps.append(Step("backup.begin", found.runs_on, "a new backup begins"))
    return Plan(
        verb="restore",
        subject=found.host,
        summary=(
            f"from {where(found)}, {words}",
            f"backup {backup.label} of {stated(backup.ended)}, {size(backup.cluster_bytes)}",
        ),
        steps=tuple(steps),
        warnings=tuple(_warnings(found, target, choices)),
        why=choices.why,
    )


def _recovery(found: Survey, target: Target) -> tuple[Backup, list[str], str]:
    """The backup to begin with, what pgBackRest is told, and both in words."""
    if target.moment is not None:
        backup = found.listing.before(target.moment, found.now)
        arguments = [
            "--type=time", f"--target={for_postgres(target.moment)}", "--target-action=promote",
            f"--set={backup.label}",
        ]  # fmt: skip
        return backup, arguments, f"as it was at {stated(target.moment)}"
    if target.label:
        backup = found.listing.backup(target.label)
        arguments = [
            "--type=immediate", "--target-action=promote", CURRENT_TIMELINE,
            f"--set={backup.label}",
        ]  # fmt: skip
        return backup, arguments, f"as it was when backup {backup.label} ended"
    backup = found.listing.newest()
    return backup, ["--type=default", f"--set={backup.label}"], "to the last that is there"


def _check_room(found: Survey, backup: Backup, choices: Choices) -> None:
    need = int(backup.cluster_bytes * SPARE)
    if choices.in_place:
        need -= found.cluster_bytes
    if found.free_bytes < need:
        raise OpsError(
            f"{found.host} has {size(found.free_bytes)} free and the restore needs {size(need)}",
            place=f"{found.host}: {found.config['postgres']['data']}",
            cure="make room, or --in-place, which leaves no way back to the cluster of now",
        )


def _warnings(found: Survey, target: Target, choices: Choices) -> list[str]:
    said = ["nobody is answered meanwhile: chats get 502 or 503 until the app serves again"]
    if target.moment is not None or target.label:
        said.append("what was written after that moment is not in the restored database")
    if not found.ours:
        said.append(
            "the cluster of now is another one than the repository's: that of a fresh host, if all "
            "is well"
        )
    if choices.in_place:
        said.append("in place: the cluster of now is overwritten, there is no way back to it")
    elif found.cluster_bytes:
        said.append(
            f"the cluster of now ({size(found.cluster_bytes)}) is kept beside the new one until "
            "you remove it"
        )
    return said


def unprotected(found: Survey) -> tuple[str, ...]:
    """What a repository does not protect from."""
    if found.config["repository"] != "posix":
        return ()
    return (
        f"the repository is a folder of {found.host}: it is lost with that host. Set "
        "backup_repository to host or s3",
    )


def where(found: Survey) -> str:
    """The repository in words."""
    config: Mapping[str, Any] = found.config
    if config["repository"] == "s3":
        return "the S3 repository"
    return f"{found.runs_on}:{config['repository_path']}"


def foreign(found: Survey) -> OpsError:
    """An error about a repository that has another cluster's backups."""
    return OpsError(
        f"{where(found)} holds backups of another cluster than the one of {found.host}",
        place=found.host,
        cure="ops restore brings that cluster back; to begin anew: docs/backup.md",
    )


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
