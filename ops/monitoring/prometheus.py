"""A client of Prometheus' HTTP API: what is true, what was, and which alerts that makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from ops.errors import InputError, RemoteError
from ops.fleet import Fleet
from ops.monitoring.http import Service, reached

PORT = 9090
UNIT = "prometheus.service"


@dataclass(frozen=True)
class Sample:
    """A value at one time.

    Attributes:
        labels: Of the series, `__name__` among them where the query leaves it.
        value: Any float, NaN and infinities included.
        time: Seconds since the epoch.
    """

    labels: Mapping[str, str]
    value: float
    time: float


@dataclass(frozen=True)
class Series:
    """Values over time: pairs of seconds since the epoch and value."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Alert:
    """An alert as Prometheus has it.

    Attributes:
        labels: `alertname`, `severity`, `layer`, `host` and what else tells it apart.
        annotations: `summary`, `description`, `runbook`, `cure`.
        state: `pending` or `firing`.
        since: When its condition began to hold, RFC 3339.
        value: Of its expression.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str
    since: str
    value: float

    @property
    def name(self) -> str:
        """What the rule is called."""
        return self.labels.get("alertname", "")


@dataclass(frozen=True)
class Target:
    """What Prometheus scrapes, `health` being `up`, `down` or `unknown`."""

    labels: Mapping[str, str]
    url: str
    health: str
    error: str


class Prometheus:
    """Prometheus at a base URL.

    Args:
        service: Where it answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def query(self, expression: str, *, at: float | None = None) -> list[Sample]:
        """Evaluate an expression at one time.

        Args:
            expression: PromQL; a scalar becomes one sample without labels.
            at: Seconds since the epoch; None is now.

        Raises:
            InputError: Prometheus does not understand the expression.
            RemoteError: It gives no answer.
        """
        form = {"query": expression} | ({} if at is None else {"time": str(at)})
        data = self._ask("POST", "/api/v1/query", form=form)
        if data["resultType"] in ("scalar", "string"):
            time, value = data["result"]
            return [Sample({}, float(value), float(time))]
        return [
            Sample(row["metric"], float(row["value"][1]), float(row["value"][0]))
            for row in data["result"]
        ]

    def query_range(
        self, expression: str, *, start: float, end: float, step: float
    ) -> list[Series]:
        """Evaluate an expression over time.

        Args:
            expression: PromQL.
            start: First moment, seconds since the epoch.
            end: Last moment, the same.
            step: Seconds between two values; at most 11,000 fit an answer.

        Raises:
            InputError: Prometheus does not understand the expression, or the range.
            RemoteError: It gives no answer.
        """
        form = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        data = self._ask("POST", "/api/v1/query_range", form=form)
        return [
            Series(row["metric"], tuple((float(t), float(v)) for t, v in row["values"]))
            for row in data["result"]
        ]

    def alerts(self) -> list[Alert]:
        """Return what is pending or firing, the oldest first."""
        found = [
            Alert(
                row["labels"],
                row["annotations"],
                row["state"],
                row["activeAt"],
                float(row["value"]),
            )
            for row in self._ask("GET", "/api/v1/alerts")["alerts"]
        ]
        return sorted(found, key=lambda alert: alert.since)

    def targets(self) -> list[Target]:
        """Return all that is scraped, in the order of their labels."""
        rows = self._ask("GET", "/api/v1/targets", query={"state": "active"})["activeTargets"]
        found = [
            Target(row["labels"], row["scrapeUrl"], row["health"], row["lastError"]) for row in rows
        ]
        return sorted(found, key=lambda target: sorted(target.labels.items()))

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Any:
        answer = self._service.request(method, path, query=query, form=form)
        try:
            document = answer.json()
            if document["status"] == "success":
                return document["data"]
            why = document.get("error", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RemoteError(
                f"what answers as Prometheus on {self._service.host} is another program",
                place=f"{self._service.host}: {path}",
                cure=f"systemctl status {UNIT} there",
            ) from None
        if answer.status_code in (httpx2.codes.BAD_REQUEST, httpx2.codes.UNPROCESSABLE_CONTENT):
            raise InputError(
                f"Prometheus does not take the query: {why}",
                place=str((form or {}).get("query", path)),
                cure="correct the expression",
            )
        raise RemoteError(f"Prometheus could not answer: {why}", place=path)


@contextmanager
def prometheus(fleet: Fleet) -> Iterator[Prometheus]:
    """Lead to the Prometheus that watches a fleet.

    Raises:
        InputError: Nobody watches it.
        RemoteError: The monitoring host cannot be reached.
    """
    with reached(fleet, PORT, UNIT) as service:
        yield Prometheus(service)
