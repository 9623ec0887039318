"""Lines over time as a small SVG that takes its colours from the page that it stands in."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from ops.dashboards.panel import Kind, Panel
from ops.dashboards.unit import COUNT
from ops.report.answers import Answer, Line
from ops.report.question import Question

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES = 6.2, 2.0
WIDE_INCHES = 12.8
WIDE_SPAN = 12
MOST_LINES = 8
DASHES = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0))
"""Lines differ in dashes as well as in colour, for whoever cannot tell the colours apart."""
INK, GRID = "#0a0be0", "#0a0be1"
WORDS = {"warning": "#0a0be2", "critical": "#0a0be3"}
VARIABLES = {
    INK: "--ink-soft",
    GRID: "--grid",
    WORDS["warning"]: "--warning",
    WORDS["critical"]: "--critical",
}
"""Colours that stand for the page's: matplotlib writes them, `_themed` puts variables there."""
FORMATS = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
"""Of ticks at whole years, months, days, hours, minutes, seconds."""
NUMBER = re.compile(r"-?\d+\.\d{2,}")
PLACES = re.compile(r'\b(d|x|y|transform|style)="[^"]*"')
"""Where coordinates stand; six digits of each would be half of the page."""
ID = re.compile(r"\b(id=\"|url\(#|href=\"#)")


def series_color(index: int) -> str:
    """Return the colour that stands for the page's n-th."""
    return f"#0a0b{index % MOST_LINES:02x}"


def dashes(index: int) -> tuple[float, ...]:
    """Return lengths of dashes and gaps of the n-th line; none is a solid one."""
    return DASHES[index % len(DASHES)]


def shown(answer: Answer) -> tuple[Line, ...]:
    """Return the lines that a graph has room for: those that rise highest."""
    chosen = sorted(answer.lines, key=lambda line: -max(line.values))[:MOST_LINES]
    return tuple(line for line in answer.lines if line in chosen)


def draw(answer: Answer, question: Question, zone: tzinfo, name: str) -> str:
    """Return a graph as SVG for a page.

    Args:
        answer: A panel with lines.
        question: Its period is the time axis.
        zone: Of the times on that axis.
        name: A word that is unique on the page, for the SVG's ids.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {  # its keys are a type of 300 literals
        "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
        "svg.hashsalt": name,
        "path.simplify_threshold": 0.3,
        "font.size": 8.5,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
    }
    with rc_context(settings):
        width = WIDE_INCHES if answer.panel.span > WIDE_SPAN else WIDTH_INCHES
        figure = Figure(figsize=(width, HEIGHT_INCHES))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _plot(axes, answer, question)
        _times(axes, question, zone)
        _scale(axes, answer)
        _margins(figure, axes, width)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _themed(text.getvalue(), name)


def _plot(axes: Axes, answer: Answer, question: Question) -> None:
    lines = shown(answer)
    if answer.panel.kind is Kind.STACK:
        moments = sorted({moment for line in lines for moment, _ in line.points})
        below = [0.0] * len(moments)
        for index, line in enumerate(lines):
            values = dict(line.points)
            top = [low + values.get(at, 0.0) for at, low in zip(moments, below, strict=True)]
            times = _days(moments)
            color = series_color(index)
            axes.fill_between(times, below, top, color=color, alpha=0.25, linewidth=0)
            axes.plot(times, top, color=color, linewidth=1.1, dashes=dashes(index) or (None, None))
            below = top
        return
    for index, line in enumerate(lines):
        points = broken(line.points, question.step)
        axes.plot(
            _days([moment for moment, _ in points]),
            [value for _, value in points],
            color=series_color(index),
            linewidth=1.4,
            dashes=dashes(index) or (None, None),
            # A line of one point would not be seen.
            marker="o" if len(line.points) == 1 else None,
            markersize=3,
        )


def _days(moments: Sequence[float]) -> list[float]:
    """Return moments as matplotlib's dates, which are days since the epoch."""
    return [moment / 86400 for moment in moments]


def broken(points: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """Return points with a NaN in each gap, so that no line is drawn where nothing is known."""
    found: list[tuple[float, float]] = []
    for moment, value in points:
        if found and moment - found[-1][0] > 1.5 * step:
            found.append((moment - step, math.nan))
        found.append((moment, value))
    return found


def _times(axes: Axes, question: Question, zone: tzinfo) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator, tz=zone, show_offset=False, formats=FORMATS, zero_formats=FORMATS
    )
    axes.xaxis.set_major_formatter(formatter)
    start, end = _days([question.start, question.end])
    axes.set_xlim(start, end)


def _scale(axes: Axes, answer: Answer) -> None:
    from matplotlib.ticker import FuncFormatter

    panel = answer.panel
    low, high = axes.get_ylim()
    drawn = [t for t in panel.thresholds if panel.largest or near(t.value, low, high)]
    low = min([0.0 if low >= -abs(high) / 10 else low, *(t.value for t in drawn)])
    high = max([high, *(t.value * 1.08 for t in drawn)])
    if panel.largest:
        high = panel.largest * 1.02 if high <= panel.largest * 1.1 else high
    if not any(value for line in answer.lines for value in line.values):
        low, high = 0.0, max([1.0, high])  # an axis around 0 would have negative numbers
    axes.set_ylim(low, high)
    whole = all(value == int(value) for line in answer.lines for value in line.values)
    axes.set_yticks(ticks(panel, low, high, whole=whole))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: panel.unit.write(value)))
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    for threshold in drawn:
        color = WORDS[threshold.word]
        axes.axhline(threshold.value, color=color, linewidth=0.9, dashes=(2, 2))
        axes.annotate(
            threshold.word,
            (1.0, threshold.value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2 if threshold.word == "critical" else -2),
            textcoords="offset points",
            ha="right",
            va="bottom" if threshold.word == "critical" else "top",
            fontsize=7,
            color=color,
        )


def _margins(figure: Figure, axes: Axes, width: float) -> None:
    """Leave room for the longest number; matplotlib's own way takes half of the time of all."""
    write = axes.yaxis.get_major_formatter()
    longest = max((len(write(tick)) for tick in axes.get_yticks()), default=1)
    left = (0.12 + 0.068 * longest) / width
    figure.subplots_adjust(left=left, right=1 - 0.08 / width, top=0.94, bottom=0.13)


def near(value: float, low: float, high: float) -> bool:
    """Whether a threshold can be drawn without pressing the lines to the ground."""
    return low <= value <= high or (high < value <= 1.6 * high) or (0 <= value < low)


def ticks(panel: Panel, low: float, high: float, *, whole: bool) -> list[float]:
    """Return values that are round in the unit that the axis is written in, or whole counts."""
    from matplotlib.ticker import MaxNLocator

    size = next((one for one in panel.unit.sizes if one <= max(abs(low), abs(high))), 1.0)
    counted = whole and panel.unit is COUNT
    locator = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=counted)
    found = locator.tick_values(low / size, high / size)
    return [float(value) * size for value in found if low <= value * size <= high]


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found.group()):.1f}"


def _themed(text: str, name: str) -> str:
    """Make a page's part of matplotlib's file: no prolog, ids of its own, the page's colours."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    text = ID.sub(lambda found: f"{found.group(1)}{name}-", text)
    text = PLACES.sub(lambda found: NUMBER.sub(_rounded, found.group()), text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    for index in range(MOST_LINES):
        text = text.replace(series_color(index), f"var(--series-{index})")
    text = re.sub(r'<svg ([^>]*?)width="[^"]+" height="[^"]+"', r"<svg \1", text, count=1)
    # Its title and numbers are text beside it; to a screen reader it is one picture with a name.
    text = text.replace("<svg ", f'<svg class="plot" role="img" aria-labelledby="{name}-alt" ', 1)
    return re.sub(r">\s+<", "><", text).strip()
