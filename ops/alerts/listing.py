"""Alerts as a person sees them: Prometheus' own, with what Alertmanager holds back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ops.alerts.alertmanager import Silence, Told
from ops.monitoring import Alert


class State(StrEnum):
    """How an alert stands."""

    FIRING = "firing"
    PENDING = "pending"
    """Its condition holds, for less time than its rule asks for."""
    SILENCED = "silenced"
    INHIBITED = "inhibited"
    """What it follows from is told in its place."""


ORDER = {State.FIRING: 0, State.PENDING: 1, State.INHIBITED: 2, State.SILENCED: 3}
OWN = ("alertname", "severity", "layer", "host", "instance", "job", "uuid")
"""Labels that have a column of their own, or say nothing to a person."""


@dataclass(frozen=True)
class Row:
    """An alert of the list.

    Attributes:
        state: How it stands.
        alert: As Prometheus has it.
        silences: What silences it.
    """

    state: State
    alert: Alert
    silences: tuple[Silence, ...] = ()

    @property
    def critical(self) -> bool:
        """Whether it fires, is critical, and nothing holds it back."""
        return self.state == State.FIRING and self.alert.labels.get("severity") == "critical"

    @property
    def about(self) -> str:
        """What tells it apart from others of its name, besides its host."""
        pairs = sorted(self.alert.labels.items())
        return " ".join(f"{key}={value}" for key, value in pairs if key not in OWN)

    def record(self) -> dict[str, object]:
        """Return it for a script."""
        return {
            "name": self.alert.name,
            "state": self.state.value,
            "since": self.alert.since,
            "value": self.alert.value,
            "labels": dict(self.alert.labels),
            "annotations": dict(self.alert.annotations),
            "silences": [{"id": s.id, "ends": s.ends, "why": s.why} for s in self.silences],
        }


def rows(alerts: Sequence[Alert], told: Sequence[Told], silences: Sequence[Silence]) -> list[Row]:
    """Join what Prometheus has with what Alertmanager does of it.

    Args:
        alerts: Of Prometheus.
        told: Of Alertmanager; its labels may be more, such as the fleet's own.
        silences: Those in force.

    Returns:
        What fires first, the critical before the rest, and the oldest first.
    """
    by_id = {silence.id: silence for silence in silences}
    found = [_row(alert, told, by_id) for alert in alerts]
    return sorted(
        found,
        key=lambda row: (
            ORDER[row.state],
            row.alert.labels.get("severity") != "critical",
            row.alert.since,
        ),
    )


def _row(alert: Alert, told: Sequence[Told], silences: Mapping[str, Silence]) -> Row:
    if alert.state != "firing":
        return Row(State.PENDING, alert)
    for known in told:
        if alert.labels.items() <= known.labels.items():
            if known.silenced_by:
                ids = (name for name in known.silenced_by if name in silences)
                return Row(State.SILENCED, alert, tuple(silences[name] for name in ids))
            if known.inhibited_by:
                return Row(State.INHIBITED, alert)
            break
    return Row(State.FIRING, alert)
