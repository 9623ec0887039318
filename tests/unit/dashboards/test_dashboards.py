"""Dashboards: what is committed, what queries read, and that they have data where they should."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from named_metrics import known_metrics, metrics_of

from ops.dashboards import DASHBOARDS, Dashboard, Panel
from ops.dashboards.__main__ import FOLDER
from ops.dashboards.expand import expand, variables_of
from ops.dashboards.grafana import DATA_SOURCE, render
from ops.dashboards.panel import Kind
from ops.monitoring import Prometheus
from ops.report.answers import Answers
from ops.report.question import Question

PANELS = [
    pytest.param(board, panel, id=f"{board.name}: {panel.title}")
    for board in DASHBOARDS
    for panel in board.panels
]
#: What happens on no day of the made-up fleet.
NEVER = {
    "Failed units", "Operations", "Attempts that failed", "Refused", "Left for a cloud",
    "Webhooks", "MCP servers",
}  # fmt: skip


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.name)
def test_the_committed_file_is_what_the_code_renders(board: Dashboard) -> None:
    committed = (FOLDER / f"{board.name}.json").read_text(encoding="utf-8")
    assert committed == render(board), "cure: python -m ops.dashboards"


def test_no_file_is_of_a_dashboard_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {board.name for board in DASHBOARDS}


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.name)
def test_panels_have_names_of_their_own_and_places_of_their_own(board: Dashboard) -> None:
    document = json.loads(render(board))
    titles = [panel.title for panel in board.panels]
    assert len(titles) == len(set(titles))
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.name)
def test_a_dashboard_defines_the_variables_that_its_queries_have(board: Dashboard) -> None:
    document = json.loads(render(board))
    defined = {one["name"] for one in document["templating"]["list"]}
    used = set().union(*(variables_of(q.expr) for p in board.panels for q in p.queries))
    assert {name for name in used if not name.startswith("__")} <= defined
    assert {name for name in used if name.startswith("__")} <= {"__range", "__rate_interval"}
    for one in document["templating"]["list"]:
        if one["type"] == "textbox":
            assert float(one["current"]["value"]) == float(one["query"])


def test_every_query_goes_to_the_data_source_that_the_role_provisions() -> None:
    role = FOLDER.parents[1] / "templates/host/etc/grafana/provisioning"
    provisioned = (role / "datasources/rackhand.yml.j2").read_text()
    assert re.search(rf"uid: {DATA_SOURCE.uid}\b", provisioned)
    for board in DASHBOARDS:
        for panel in json.loads(render(board))["panels"]:
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] == DATA_SOURCE.uid


def test_the_parser_of_expressions_sees_metrics_and_nothing_else() -> None:
    expr = 'sum by (host) (rate(a:b_total{x=~"y|$host"}[$__range:1m]))'
    expr += " / on (host) c_d * $price > bool 5"
    assert metrics_of(expr) == {"a:b_total", "c_d"}


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_metric_is_on_a_recorded_page(board: Dashboard, panel: Panel) -> None:
    named = set().union(*(metrics_of(query.expr) for query in panel.queries))
    assert named
    assert named - known_metrics() == set()


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_says_what_it_means_and_marks_what_is_bad(board: Dashboard, panel: Panel) -> None:
    assert panel.description.endswith(".")
    assert all(query.legend for query in panel.queries) or panel.kind is Kind.STAT
    assert len({one.below for one in panel.thresholds}) <= 1
    assert not (panel.events and panel.optional)


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_prometheus_understands_every_query_and_has_data_for_it(
    board: Dashboard, panel: Panel, answers: Answers
) -> None:
    answer = answers.of(panel)
    assert bool(answer.lines) != (panel.title in NEVER), answer.why
    for query, line in zip(panel.queries, answer.lines, strict=False):
        assert "{{" not in line.name
        assert bool(line.name) == bool(query.legend)


def test_a_limit_leaves_other_hosts_out(source: Prometheus, end: float) -> None:
    values = Question(end, 3600, ("gpu1",)).values
    samples = source.query(expand('count by (host) (up{host=~"$host"})', values), at=end)
    assert [sample.labels["host"] for sample in samples] == ["gpu1"]
    # A dot in a name is a dot.
    dotted = Question(end, 3600, ("gpu.",)).values
    assert source.query(expand('up{host=~"$host"}', dotted), at=end) == []


def steps(name: str, title: str) -> list[dict[str, Any]]:
    board = next(one for one in DASHBOARDS if one.name == name)
    panels = json.loads(render(board))["panels"]
    found: list[dict[str, Any]] = next(p for p in panels if p["title"] == title)["fieldConfig"][
        "defaults"
    ]["thresholds"]["steps"]
    return found


def test_thresholds_colour_the_bad_side() -> None:
    assert steps("gpu", "Temperature") == [
        {"color": "green", "value": None},
        {"color": "orange", "value": 85},
    ]
    assert steps("edge", "Certificate") == [
        {"color": "red", "value": None},
        {"color": "orange", "value": 3},
        {"color": "green", "value": 14},
    ]
