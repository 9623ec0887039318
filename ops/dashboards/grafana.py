"""Grafana's JSON of a dashboard, through Grafana's own SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

from ops.dashboards.panel import Dashboard, Kind, Panel, Price, Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA_SOURCE = common.DataSourceRef(type_val="prometheus", uid="rackhand-prometheus")
"""The data source that role grafana provisions under this uid."""
TAG = "rackhand"
HEIGHTS = {Kind.STAT: 4, Kind.GRAPH: 8, Kind.STACK: 8, Kind.STATE: 8, Kind.TABLE: 8}
COLORS = {"warning": "orange", "critical": "red"}
WELL, UNWELL, IDLE = "green", "red", "text"
COLUMNS = 24


def render(board: Dashboard) -> str:
    """Return the JSON of a dashboard; the same one for the same definition."""
    built = _dashboard(board).build()
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _dashboard(board: Dashboard) -> dashboards.Dashboard:
    made = (
        dashboards.Dashboard(f"Rackhand: {board.title}")
        .uid(f"rackhand-{board.name}")
        .description(board.description)
        .tags([TAG])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .refresh("1m")
        .time("now-24h" if board.prices else "now-6h", "now")
        .timezone("browser")
        .link(
            dashboards.DashboardLink("Other dashboards")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(_hosts())
    )
    for price in board.prices:
        made.with_variable(_price(price))
    _fill(made, board)
    return made


def _fill(made: dashboards.Dashboard, board: Dashboard) -> None:
    """Give rows and panels their places and numbers, from top to bottom."""
    top = number = 0
    for row in board.rows:
        number += 1
        made.with_row(dashboards.Row(row.title).id(number).grid_pos(_place(0, top, COLUMNS, 1)))
        top += 1
        for line in lines(row.panels):
            left, height = 0, max(HEIGHTS[one.kind] for one in line)
            for one in line:
                number += 1
                built = PANELS[one.kind](one)
                made.with_panel(built.id(number).grid_pos(_place(left, top, one.span, height)))
                left += one.span
            top += height


def lines(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Return panels as lines that fit the width."""
    found: list[list[Panel]] = []
    for one in panels:
        if not found or sum(p.span for p in found[-1]) + one.span > COLUMNS:
            found.append([])
        found[-1].append(one)
    return found


def _place(left: int, top: int, width: int, height: int) -> dashboard.GridPos:
    return dashboard.GridPos(h=height, w=width, x=left, y=top)


def _hosts() -> dashboards.QueryVariable:
    everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboards.QueryVariable("host")
        .label("Host")
        .datasource(DATA_SOURCE)
        .query("label_values(up, host)")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _price(price: Price) -> dashboards.TextBoxVariable:
    text = f"{price.default:g}"
    chosen = dashboard.VariableOption(selected=True, text=text, value=text)
    box = dashboards.TextBoxVariable(price.name).label(price.label)
    return box.default_value(text).current(chosen).options([chosen])


def _basics(builder: Any, panel: Panel) -> Any:
    """Give what all kinds have. Their builders share methods, and no type."""
    builder.title(panel.title).description(panel.description).datasource(DATA_SOURCE)
    builder.unit(panel.unit.grafana).no_value(no_value(panel))
    instant = panel.kind in (Kind.STAT, Kind.TABLE)
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(letter)
        target.legend_format(query.legend or "__auto")
        builder.with_target(target.instant() if instant else target.range())
    if panel.largest is not None:
        builder.min(0).max(panel.largest)
    return builder


def no_value(panel: Panel) -> str:
    """Return what a panel without data says."""
    return "none" if panel.events else "no data"


def _thresholds(thresholds: Sequence[Threshold]) -> dashboards.ThresholdsConfig:
    """Grafana colours from a value upwards: where low is bad the colours are turned round."""
    if thresholds and thresholds[0].below:
        ordered = sorted(thresholds, key=lambda one: one.value)
        colors = [COLORS[one.word] for one in ordered]
        values = [None, *(one.value for one in ordered)]
        steps = [*zip(values, [*colors, WELL], strict=True)]
    else:
        ordered = sorted(thresholds, key=lambda one: one.value)
        steps = [(None, WELL), *((one.value, COLORS[one.word]) for one in ordered)]
    return (
        dashboards.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value, color) for value, color in steps])
    )


def _graph(panel: Panel) -> Any:
    builder = _basics(timeseries.Panel(), panel)
    builder.line_width(1).show_points(common.VisibilityMode.NEVER).legend(
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["mean", "max", "lastNotNull"])
    )
    builder.tooltip(
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    builder.fill_opacity(10)
    if panel.kind is Kind.STACK:
        builder.fill_opacity(40).stacking(
            common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
        )
    if panel.thresholds:
        builder.thresholds(_thresholds(panel.thresholds)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(
                common.GraphThresholdsStyleMode.DASHED
            )
        )
    return builder


def _stat(panel: Panel) -> Any:
    builder = _basics(stats.Panel(), panel)
    builder.thresholds(_thresholds(panel.thresholds)).graph_mode(common.BigValueGraphMode.NONE)
    builder.color_mode(common.BigValueColorMode.VALUE)
    named = bool(panel.queries[0].legend)
    builder.text_mode(
        common.BigValueTextMode.VALUE_AND_NAME if named else common.BigValueTextMode.VALUE
    )
    return builder.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))


def _state(panel: Panel) -> Any:
    low = IDLE if panel.calm else UNWELL
    words = {
        str(value): dashboard.ValueMappingResult(
            text=panel.unit.write(value), color=color, index=value
        )
        for value, color in ((0, low), (1, WELL))
    }
    builder = _basics(statetimeline.Panel(), panel)
    builder.mappings([dashboard.ValueMap(options=words)]).show_value(common.VisibilityMode.NEVER)
    steps = dashboards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE)
    builder.thresholds(steps.steps([dashboard.Threshold(None, low), dashboard.Threshold(1, WELL)]))
    return builder.row_height(0.8)


def _table(panel: Panel) -> Any:
    builder = _basics(table.Panel(), panel)
    # A row a series: its name as the legend has it, and its value.
    return builder.with_transformation(
        dashboard.DataTransformerConfig("reduce", options={"reducers": ["lastNotNull"]})
    ).sort_by([common_builders.TableSortByFieldState().display_name("Last *").desc(True)])


PANELS = {
    Kind.GRAPH: _graph,
    Kind.STACK: _graph,
    Kind.STAT: _stat,
    Kind.STATE: _state,
    Kind.TABLE: _table,
}
