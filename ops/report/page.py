"""The page: what a reader sees of the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ops.dashboards import Dashboard
from ops.dashboards.cost import PRICES
from ops.dashboards.headline import HEADLINE
from ops.dashboards.panel import Kind
from ops.dashboards.unit import SHARE
from ops.report.answers import Answer, Answers, Line
from ops.report.drawing import MOST_LINES, dashes, draw, shown
from ops.report.question import Question

GRAPHS = (Kind.GRAPH, Kind.STACK)
MOST_ROWS = 30
SIGNS = {"warning": "▲", "critical": "■"}


@dataclass(frozen=True)
class Strip:
    """A stretch of a state's time line: start and length in percent, and whether it was 1."""

    left: float
    width: float
    up: bool


def write_page(
    answers: Answers, fleet: str, zone: tzinfo, drawn: Callable[[], None] = lambda: None
) -> str:
    """Return the report as HTML that needs nothing beside itself.

    Args:
        answers: All numbers.
        fleet: What the fleet is called, its domain.
        zone: Of the times on the page.
        drawn: Called after each graph.
    """
    environment = _environment(answers.question)
    pictures: dict[str, Markup] = {}
    for board, found in answers.sections:
        for index, answer in enumerate(found):
            if answer.panel.kind in GRAPHS and answer.lines:
                name = f"{board.name}-{index}"
                # matplotlib's own SVG; no label of the fleet is in it.
                pictures[name] = Markup(draw(answer, answers.question, zone, name))  # noqa: S704
                drawn()
    template = environment.get_template("page.html.j2")
    return template.render(
        fleet=fleet,
        hosts=answers.question.hosts,
        start=_moment(answers.question.start, zone),
        end=_moment(answers.question.end, zone),
        step=f"{answers.question.step:g}",
        headline=[answers.of(panel) for panel in HEADLINE],
        sections=[_section(board, found) for board, found in answers.sections],
        pictures=pictures,
        prices=[(one.label, answers.question.values[one.name]) for one in PRICES],
    )


def _environment(question: Question) -> Environment:
    environment = Environment(
        loader=PackageLoader("ops.report", "."),
        autoescape=True,  # labels come from the fleet, and nobody vouches for them
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        signs=SIGNS,
        swatch=swatch,
        most_lines=MOST_LINES,
        most_rows=MOST_ROWS,
        kinds=Kind,
        graphs=GRAPHS,
        series=series,
        states=lambda line: strips(line, question),
        up_share=up_share,
        shares=SHARE.text,
        sentence=sentence,
    )
    return environment


def graph_count(answers: Answers) -> int:
    """Return how many graphs a page will have."""
    return sum(
        1
        for _, found in answers.sections
        for answer in found
        if answer.panel.kind in GRAPHS and answer.lines
    )


def _moment(seconds: float, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(seconds, zone):%Y-%m-%d %H:%M %Z}"


def _section(board: Dashboard, found: Sequence[Answer]) -> dict[str, Any]:
    """Return rows of a section; the headline stands at the top of the page already."""
    numbered = iter(enumerate(found))
    rows = []
    for row in board.rows:
        panels = [
            (f"{board.name}-{index}", answer)
            for index, answer in (next(numbered) for _ in row.panels)
        ]
        if row.panels != HEADLINE:
            rows.append({"title": row.title, "panels": panels})
    return {"board": board, "rows": rows}


def series(answer: Answer) -> tuple[Line, ...]:
    """Return the lines that a panel shows."""
    return shown(answer) if answer.panel.kind in GRAPHS else answer.lines[:MOST_ROWS]


def swatch(index: int) -> str:
    """Return the dashes of a legend's line, as SVG writes them."""
    return " ".join(f"{length:g}" for length in dashes(index))


def strips(line: Line, question: Question) -> list[Strip]:
    """Return a state's time line; time without a sample is left out."""
    found: list[Strip] = []
    percent = 100 / question.seconds
    width = question.step * percent
    for moment, value in line.points:
        left = max(0.0, (moment - question.start) * percent - width)
        up = value >= 1
        if found and found[-1].up == up and left - (found[-1].left + found[-1].width) < width / 2:
            before = found.pop()
            left, span = before.left, left + width - before.left
        else:
            span = width
        found.append(Strip(left, min(span, 100 - left), up))
    return found


def up_share(line: Line) -> float:
    """Return the share of its samples in which a state was 1."""
    return sum(value >= 1 for value in line.values) / len(line.values)


def sentence(answer: Answer) -> str:
    """Say a graph in words, for whoever does not see it."""
    unit = answer.panel.unit
    lines = answer.lines
    highest = max(lines, key=lambda line: max(line.values))
    lowest = min(lines, key=lambda line: min(line.values))
    return (
        f"{answer.panel.title} over time, {len(lines)} lines: from {unit.text(min(lowest.values))} "
        f"({lowest.name or 'the only one'}) to {unit.text(max(highest.values))} "
        f"({highest.name or 'the only one'})."
    )
