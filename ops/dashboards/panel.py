"""What a dashboard is made of, as data that Grafana's JSON and `ops report` are both made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict, Unpack

from ops.dashboards.unit import COUNT, UP, Unit


class Kind(StrEnum):
    """How a panel shows its values."""

    GRAPH = "graph"
    """Lines over time."""
    STACK = "stack"
    """Lines over time, one on the other: parts of a whole."""
    STATE = "state"
    """1 or 0 over time, a strip each."""
    STAT = "stat"
    """One value now, or of the whole period where the query says `$__range`."""
    TABLE = "table"
    """Values now, a row each, the largest first."""


class Job(StrEnum):
    """Prometheus' job that a panel lives from."""

    PROMETHEUS = "prometheus"
    ALERTMANAGER = "alertmanager"
    NODE = "node"
    GPU = "gpu"
    ENGINE = "engine"
    APP = "agent_app"
    POSTGRES = "postgres"
    REDIS = "redis"
    NGINX = "nginx"
    BLACKBOX = "blackbox"


@dataclass(frozen=True)
class Query:
    """A PromQL expression with dashboard variables in it, and what names its series.

    Attributes:
        expr: With `$host`, `$__rate_interval`, `$__range` and the dashboard's own variables.
        legend: Text with `{{label}}` in it.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Threshold:
    """From where on a value asks for attention.

    Attributes:
        value: In the panel's unit.
        word: What it then is: `warning` or `critical`.
        below: Whether low values are the bad ones.
    """

    value: float
    word: str
    below: bool = False

    def reached(self, value: float) -> bool:
        """Whether a value is past it."""
        return value <= self.value if self.below else value >= self.value


def warning(value: float, *, below: bool = False) -> Threshold:
    """Return a threshold that asks for a look."""
    return Threshold(value, "warning", below)


def critical(value: float, *, below: bool = False) -> Threshold:
    """Return a threshold that asks for hands."""
    return Threshold(value, "critical", below)


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        title: Says what is shown; unique on its dashboard.
        description: What it means and what to do about it, a sentence or two.
        queries: One or more.
        job: Whose metrics they are; without such a target there can be no data.
        unit: Of all values.
        kind: How it is shown.
        thresholds: Drawn as lines, and named beside a value that is past one.
        events: Whether no series means that nothing happened, as with counters of failures that
            begin with the first.
        optional: Why there may be no data though the target is well; empty where there must be.
        calm: Whether a state of 0 is as it may be.
        span: Columns of Grafana's 24.
        largest: The end of the axis where the unit has one (1 for shares of a whole).
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    job: Job
    unit: Unit = COUNT
    kind: Kind = Kind.GRAPH
    thresholds: tuple[Threshold, ...] = ()
    events: bool = False
    optional: str = ""
    calm: bool = False
    span: int = 8
    largest: float | None = None


class Settings(TypedDict, total=False):
    """What else a panel may say; see `Panel`."""

    unit: Unit
    kind: Kind
    thresholds: tuple[Threshold, ...]
    events: bool
    optional: str
    calm: bool
    span: int
    largest: float | None


def graph(
    title: str, description: str, job: Job, *series: tuple[str, str], **rest: Unpack[Settings]
) -> Panel:
    """Return lines over time; each of `series` is an expression and its legend."""
    return Panel(title, description, tuple(Query(*one) for one in series), job, **rest)


def stat(
    title: str, description: str, job: Job, expr: str, legend: str = "", **rest: Unpack[Settings]
) -> Panel:
    """Return one value; its legend is told beside it where it has one."""
    settings: Settings = {"kind": Kind.STAT, "span": 4, **rest}
    return graph(title, description, job, (expr, legend), **settings)


def state(
    title: str, description: str, job: Job, expr: str, legend: str, **rest: Unpack[Settings]
) -> Panel:
    """Return strips of 1 and 0."""
    settings: Settings = {"kind": Kind.STATE, "unit": UP, "span": 12, **rest}
    return graph(title, description, job, (expr, legend), **settings)


def table(
    title: str, description: str, job: Job, expr: str, legend: str, **rest: Unpack[Settings]
) -> Panel:
    """Return values now, a row each."""
    settings: Settings = {"kind": Kind.TABLE, "span": 12, **rest}
    return graph(title, description, job, (expr, legend), **settings)


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Price:
    """A number that a person sets on a dashboard or for a report.

    Attributes:
        name: Of the variable.
        label: What it is, with its unit.
        default: Where nobody set it.
    """

    name: str
    label: str
    default: float


@dataclass(frozen=True)
class Dashboard:
    """A dashboard.

    Attributes:
        name: Its file, its address in Grafana (`rackhand-<name>`) and its anchor in the report.
        title: For people.
        description: What question it answers.
        rows: What is on it.
        prices: Variables beside `$host`.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    prices: tuple[Price, ...] = ()

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels, in order."""
        for row in self.rows:
            yield from row.panels
