"""Ask Prometheus for every panel, and put what it answers into names and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from ops.dashboards import DASHBOARDS, Dashboard, Panel
from ops.dashboards.expand import expand
from ops.dashboards.panel import Kind, Query, Threshold
from ops.monitoring import Sample, Series
from ops.report.question import Question

AT_ONCE = 4
LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
INSTANT = (Kind.STAT, Kind.TABLE)
WATCHED = 'count by (job) (count_over_time(up{host=~"$host"}[$__range]))'


class Source(Protocol):
    """What answers queries: `ops.monitoring.Prometheus`."""

    def query(self, expression: str, *, at: float | None = None) -> list[Sample]:
        """Evaluate at one time."""
        ...

    def query_range(
        self, expression: str, *, start: float, end: float, step: float
    ) -> list[Series]:
        """Evaluate over time."""
        ...


@dataclass(frozen=True)
class Line:
    """A series of a panel.

    Attributes:
        name: As its legend says.
        points: Pairs of seconds since the epoch and a finite value, never empty.
        ended: Whether it has no value any more at the period's end.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    ended: bool = False

    @property
    def values(self) -> list[float]:
        """The values alone."""
        return [value for _, value in self.points]

    @property
    def last(self) -> float | None:
        """The value at the period's end; None where the series ended before."""
        return None if self.ended else self.points[-1][1]

    @property
    def mean(self) -> float:
        """The average of the points."""
        return math.fsum(self.values) / len(self.points)


@dataclass(frozen=True)
class Answer:
    """A panel with what Prometheus says to it; `why` tells why there is nothing."""

    panel: Panel
    lines: tuple[Line, ...]
    why: str = ""

    @property
    def alarm(self) -> Threshold | None:
        """The worst threshold that a value is past now."""
        passed = [
            threshold
            for threshold in self.panel.thresholds
            if any(line.last is not None and threshold.reached(line.last) for line in self.lines)
        ]
        return max(passed, key=lambda one: one.word == "critical", default=None)


@dataclass(frozen=True)
class Answers:
    """All of a report's numbers, by dashboard, in order."""

    question: Question
    sections: tuple[tuple[Dashboard, tuple[Answer, ...]], ...]

    def of(self, panel: Panel) -> Answer:
        """Return a panel's answer."""
        return next(one for _, answers in self.sections for one in answers if one.panel is panel)


def collect(source: Source, question: Question, seen: Callable[[], None] = lambda: None) -> Answers:
    """Ask for everything.

    Args:
        source: Where.
        question: For what.
        seen: Called after each panel.

    Raises:
        OpsError: Prometheus gives no answer.
    """
    watched = {
        sample.labels.get("job", "")
        for sample in source.query(expand(WATCHED, question.values), at=question.end)
    }

    def one(panel: Panel) -> Answer:
        lines = tuple(_lines(source, question, panel))
        seen()
        return Answer(panel, lines, "" if lines else why_empty(panel, watched))

    panels = [panel for board in DASHBOARDS for panel in board.panels]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = iter(list(pool.map(one, panels)))
    sections = tuple((board, tuple(next(found) for _ in board.panels)) for board in DASHBOARDS)
    return Answers(question, sections)


def count() -> int:
    """Return how many panels `collect` asks for."""
    return sum(1 for board in DASHBOARDS for _ in board.panels)


def why_empty(panel: Panel, watched: set[str]) -> str:
    """Say why a panel has no data, as far as that is known."""
    if panel.job not in watched:
        return f"No data: Prometheus watches no target of job {panel.job}."
    if panel.events:
        now = panel.kind in INSTANT and not any("$__range" in q.expr for q in panel.queries)
        return "None now." if now else "None in this period."
    if panel.optional:
        return f"No data: {panel.optional}."
    return f"No data, although targets of job {panel.job} are watched."


def _lines(source: Source, question: Question, panel: Panel) -> Iterator[Line]:
    for query in panel.queries:
        expr = expand(query.expr, question.values)
        if panel.kind in INSTANT:
            samples = source.query(expr, at=question.end)
            found = [Series(one.labels, ((question.end, one.value),)) for one in samples]
        else:
            found = source.query_range(
                expr, start=question.start, end=question.end, step=question.step
            )
        lines = []
        for series in found:
            points = tuple(point for point in series.values if math.isfinite(point[1]))
            if points:
                ended = question.end - points[-1][0] >= 2 * question.step
                lines.append(Line(legend(query, series.labels), points, ended))
        yield from ranked(lines, panel.kind)


def ranked(lines: Sequence[Line], kind: Kind) -> list[Line]:
    """Return series in the order of their names; a table's by value, the largest first."""
    named = sorted(lines, key=lambda line: line.name)
    return sorted(named, key=lambda line: -line.points[-1][1]) if kind is Kind.TABLE else named


def legend(query: Query, labels: Mapping[str, str]) -> str:
    """Return a series' name."""
    if not query.legend:
        return " ".join(value for key, value in sorted(labels.items()) if key != "__name__")
    text = LABEL.sub(lambda found: labels.get(found.group(1), ""), query.legend)
    return " ".join(text.split())
