"""What a repository has of the fleet's cluster, read from `pgbackrest info`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ops.errors import InputError, OpsError

SEGMENT_BYTES = 16 << 20
"""PostgreSQL's default, which the distribution's clusters have."""


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
        timeline: The timeline that it was made on.
        end: The position in the WAL at which it ended.
    """

    label: str
    kind: str
    began: datetime
    ended: datetime
    cluster_bytes: int
    stored_bytes: int
    system: int
    timeline: int = 1
    end: int = 0

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
        timeline: The newest timeline, which a recovery follows.
        branches: Where its ancestors ended for it: by timeline, positions in the WAL.
    """

    backups: tuple[Backup, ...]
    archived: str = ""
    timeline: int = 1
    branches: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, stanzas: Sequence[Mapping[str, Any]], timeline: int = 1, history: str = ""
    ) -> Listing:
        """Read what `pgbackrest info --output=json` printed.

        Args:
            stanzas: That.
            timeline: The newest timeline of which the repository knows.
            history: PostgreSQL's history file of it.
        """
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
                timeline=int(entry["archive"]["stop"][:8], 16),
                end=_end_of(entry),
            )
            for entry in stanza.get("backup", ())
            if not entry.get("error")
        ]
        archived = [str(entry["max"] or "") for entry in stanza.get("archive", ())]
        ordered = tuple(sorted(found, key=lambda one: one.ended))
        return cls(ordered, max(archived, default=""), timeline, _branches(history))

    def leads_to_now(self, backup: Backup) -> bool:
        """Whether a recovery from a backup can follow the newest timeline.

        A backup of a restored cluster that was given up again, by `ops abort`, does not lead there;
        nor does one that was made after the moment to which a later restore went back.
        """
        if backup.timeline == self.timeline:
            return True
        return backup.end <= self.branches.get(backup.timeline, -1)

    def newest(self) -> Backup:
        """The newest backup that leads to the last that is there.

        Raises:
            OpsError: There is none.
        """
        assert self.earliest  # refuses an empty repository
        return self._last_of(self.backups)

    def _last_of(self, backups: Sequence[Backup]) -> Backup:
        for one in reversed(backups):
            if self.leads_to_now(one):
                return one
        raise OpsError(
            "every backup is of a cluster that was given up again",
            place=f"timeline {self.timeline}",
            cure="ops backup run --full; or --backup LABEL of one as it was (ops backup list)",
        )

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
        return self._last_of([one for one in self.backups if one.ended <= moment])


def _position(text: str) -> int:
    """A position in the WAL, as PostgreSQL writes it, as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _end_of(entry: Mapping[str, Any]) -> int:
    """Where a backup ended; before pgBackRest 2.36 no better than by its segment."""
    if stop := (entry.get("lsn") or {}).get("stop"):
        return _position(stop)
    segment = entry["archive"]["stop"]
    return (int(segment[8:16], 16) << 32) + int(segment[16:24], 16) * SEGMENT_BYTES


def _branches(history: str) -> dict[int, int]:
    """A history file: a line an ancestor, with where the next timeline left it."""
    rows = (line.split() for line in history.splitlines() if line.strip() and line[0] != "#")
    return {int(row[0]): _position(row[1]) for row in rows}


def stated(moment: datetime) -> str:
    """A moment as it is told, always with its zone."""
    return moment.strftime("%Y-%m-%d %H:%M:%S") + moment.strftime(" %z").replace(" +0000", " UTC")
