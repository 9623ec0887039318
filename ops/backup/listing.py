"""What a repository has of the fleet's cluster, read from `pgbackrest info`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ops.errors import InputError, OpsError


@dataclass(frozen=True)
class Backup:
    """One backup of the cluster.

    Attributes:
        label: pgBackRest's name of it.
        kind: `full`, `diff` or `incr`.
        began: When it began.
        ended: When it ended: the first moment that it leads back to.
        cluster_bytes: What the cluster took.
        stored_bytes: What this backup added to the repository.
        system: The cluster's system identifier.
    """

    label: str
    kind: str
    began: datetime
    ended: datetime
    cluster_bytes: int
    stored_bytes: int
    system: int

    def as_record(self) -> dict[str, Any]:
        """The backup for programs."""
        return {
            "label": self.label,
            "kind": self.kind,
            "began": self.began.isoformat(),
            "ended": self.ended.isoformat(),
            "cluster_bytes": self.cluster_bytes,
            "stored_bytes": self.stored_bytes,
        }


@dataclass(frozen=True)
class Listing:
    """All good backups, oldest first.

    Attributes:
        backups: The good ones.
        archived: The newest archived WAL segment; empty where there is none.
    """

    backups: tuple[Backup, ...]
    archived: str = ""

    @classmethod
    def parse(cls, stanzas: Sequence[Mapping[str, Any]]) -> Listing:
        """Read what `pgbackrest info --output=json` printed."""
        if not stanzas:
            return cls(())
        stanza = stanzas[0]
        systems = {entry["id"]: int(entry["system-id"]) for entry in stanza.get("db", ())}
        found = [
            Backup(
                label=entry["label"],
                kind=entry["type"],
                began=datetime.fromtimestamp(entry["timestamp"]["start"], UTC),
                ended=datetime.fromtimestamp(entry["timestamp"]["stop"], UTC),
                cluster_bytes=int(entry["info"]["size"]),
                stored_bytes=int(entry["info"]["repository"]["delta"]),
                system=systems.get(entry["database"]["id"], 0),
            )
            for entry in stanza.get("backup", ())
            if not entry.get("error")
        ]
        archived = [str(entry["max"] or "") for entry in stanza.get("archive", ())]
        return cls(tuple(sorted(found, key=lambda one: one.ended)), max(archived, default=""))

    @property
    def earliest(self) -> datetime:
        """The first moment that can be restored.

        Raises:
            OpsError: There is no backup.
        """
        if not self.backups:
            raise OpsError("the repository has no backup", cure="ops backup run")
        return self.backups[0].ended

    def backup(self, label: str) -> Backup:
        """The backup of a name.

        Raises:
            InputError: There is none; the message has those there are.
        """
        for one in self.backups:
            if one.label == label:
                return one
        raise InputError(
            f"there is no backup {label}",
            place="--backup",
            cure="one of: " + ", ".join(one.label for one in self.backups),
        )

    def before(self, moment: datetime, now: datetime) -> Backup:
        """The newest backup that leads to a moment.

        Args:
            moment: Where to go back to.
            now: The present, by the clock of the host with the repository's clients.

        Raises:
            InputError: It lies before the oldest backup, or in the future; the message has the
                window.
        """
        first = self.earliest
        window = f"from {stated(first)} to now, {stated(now)}"
        if moment > now:
            raise InputError(
                f"{stated(moment)} lies in the future", place="--to", cure=f"a time {window}"
            )
        if moment < first:
            raise InputError(
                f"{stated(moment)} is before the end of the oldest backup, {self.backups[0].label}",
                place="--to",
                cure=f"a time {window}",
            )
        return [one for one in self.backups if one.ended <= moment][-1]


def stated(moment: datetime) -> str:
    """A moment as it is told, always with its zone."""
    return moment.strftime("%Y-%m-%d %H:%M:%S") + moment.strftime(" %z").replace(" +0000", " UTC")
