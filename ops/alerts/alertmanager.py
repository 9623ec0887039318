"""A client of Alertmanager's HTTP API (v2): its alerts, silences, receivers and counters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ops.errors import InputError, RemoteError
from ops.fleet import Fleet
from ops.monitoring.http import Service, reached

PORT = 9093
UNIT = "prometheus-alertmanager.service"
COUNTER = re.compile(
    r"^alertmanager_notification_requests(_failed)?_total\{([^}]*)\} (\S+)$", re.MULTILINE
)
"""Counted after each attempt; alertmanager_notifications_total counts before, and failures last."""
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Matcher:
    """One condition of a silence on a label."""

    name: str
    value: str
    regex: bool = False
    equal: bool = True

    def __str__(self) -> str:
        sign = ("=~" if self.regex else "=") if self.equal else ("!~" if self.regex else "!=")
        return f'{self.name}{sign}"{self.value}"'

    def record(self) -> dict[str, Any]:
        """Return what the API takes."""
        return {
            "name": self.name,
            "value": self.value,
            "isRegex": self.regex,
            "isEqual": self.equal,
        }


@dataclass(frozen=True)
class Silence:
    """A silence, with `state` being `active`, `pending` or `expired`, and times in RFC 3339."""

    id: str
    matchers: tuple[Matcher, ...]
    state: str
    ends: str
    who: str
    why: str

    @property
    def name(self) -> str:
        """The alert that it is for, empty if it is for several."""
        for matcher in self.matchers:
            if matcher.name == "alertname" and matcher.equal and not matcher.regex:
                return matcher.value
        return ""


@dataclass(frozen=True)
class Told:
    """How Alertmanager treats an alert: silences and causes that hold it back, by their ids."""

    labels: Mapping[str, str]
    silenced_by: tuple[str, ...]
    inhibited_by: tuple[str, ...]


@dataclass(frozen=True)
class Sent:
    """Attempts to notify by one integration since Alertmanager started."""

    tried: float = 0.0
    failed: float = 0.0

    @property
    def arrived(self) -> float:
        """Those that the other side took."""
        return self.tried - self.failed


class Alertmanager:
    """Alertmanager at a base URL.

    Args:
        service: Where it answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def alerts(self) -> list[Told]:
        """Return every alert that it knows."""
        return [
            Told(
                row["labels"],
                tuple(row["status"]["silencedBy"]),
                tuple(row["status"]["inhibitedBy"]),
            )
            for row in self._get("/api/v2/alerts")
        ]

    def silences(self) -> list[Silence]:
        """Return the silences that are in force or will be, the first to end first."""
        found = [
            Silence(
                row["id"],
                tuple(
                    Matcher(m["name"], m["value"], m["isRegex"], m.get("isEqual", True))
                    for m in row["matchers"]
                ),
                row["status"]["state"],
                row["endsAt"],
                row["createdBy"],
                row["comment"],
            )
            for row in self._get("/api/v2/silences")
        ]
        return sorted((s for s in found if s.state != "expired"), key=lambda s: s.ends)

    def silence(
        self,
        matchers: Sequence[Matcher],
        *,
        start: datetime,
        end: datetime,
        who: str,
        why: str,
    ) -> str:
        """Make a silence and return its id.

        Raises:
            InputError: Alertmanager does not take the matchers.
        """
        body = {
            "matchers": [matcher.record() for matcher in matchers],
            "startsAt": start.isoformat(),
            "endsAt": end.isoformat(),
            "createdBy": who,
            "comment": why,
        }
        return str(self._send("POST", "/api/v2/silences", body)["silenceID"])

    def expire(self, silence: str) -> None:
        """End a silence now."""
        self._send("DELETE", f"/api/v2/silence/{silence}", None)

    def receivers(self) -> list[str]:
        """Return the names of the receivers of its configuration."""
        return [row["name"] for row in self._get("/api/v2/receivers")]

    def post(
        self,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        *,
        start: datetime,
        end: datetime,
    ) -> None:
        """Hand it an alert, as Prometheus does.

        Raises:
            InputError: It does not take the alert.
        """
        alert = {
            "labels": dict(labels),
            "annotations": dict(annotations),
            "startsAt": start.isoformat(),
            "endsAt": end.isoformat(),
        }
        self._send("POST", "/api/v2/alerts", [alert])

    def sent(self) -> dict[str, Sent]:
        """Return the attempts of each integration: slack, pagerduty, email, webhook …"""
        page = self._service.request("GET", "/metrics").text
        counts: dict[str, list[float]] = {}
        for failed, labels, value in COUNTER.findall(page):
            integration = dict(LABEL.findall(labels)).get("integration", "")
            counts.setdefault(integration, [0.0, 0.0])[bool(failed)] += float(value)
        return {name: Sent(*both) for name, both in counts.items()}

    def _get(self, path: str) -> Any:
        return self._read(self._service.request("GET", path), path)

    def _send(self, method: str, path: str, body: Any) -> Any:
        answer = self._service.request(method, path, body=body)
        if answer.is_error:
            raise InputError(
                f"Alertmanager does not take it: {answer.text[:500].strip()}",
                place=f"{method} {path}",
                cure="correct what its message names",
            )
        return self._read(answer, path) if answer.content else {}

    def _read(self, answer: Any, path: str) -> Any:
        try:
            answer.raise_for_status()
            return answer.json()
        except Exception as error:
            raise RemoteError(
                f"what answers as Alertmanager on {self._service.host} is another program",
                place=f"{self._service.host}: {path}",
                cure=f"systemctl status {UNIT} there",
            ) from error


@contextmanager
def alertmanager(fleet: Fleet) -> Iterator[Alertmanager]:
    """Lead to the Alertmanager of a fleet.

    Raises:
        InputError: Nobody watches the fleet.
        RemoteError: The monitoring host cannot be reached.
    """
    with reached(fleet, PORT, UNIT) as service:
        yield Alertmanager(service)
