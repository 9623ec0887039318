"""The report: true numbers, one page that needs nothing beside itself, and plain words for gaps."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from history import BOUNDS, HOSTILE, made_up
from html_page import Page
from servers import prometheus_server

from ops.dashboards import DASHBOARDS
from ops.dashboards.panel import Job, Kind, graph, stat, table, warning
from ops.monitoring import Prometheus, Service
from ops.report.answers import Answer, Answers, Line, collect, count, why_empty
from ops.report.drawing import MOST_LINES, broken, draw, shown
from ops.report.numbers import document
from ops.report.page import strips, up_share, write_page
from ops.report.question import Question

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@pytest.fixture(scope="module")
def text(answers: Answers) -> str:
    return write_page(answers, "agent.example.com", UTC)


def headline(answers: Answers) -> dict[str, float]:
    return {one["title"]: one["series"][0]["value"] for one in document(answers)["headline"]}


# -- numbers ------------------------------------------------------------------------------------


def samples(name: str, end: float, **labels: str) -> dict[str, list[float]]:
    """The values of the made-up fleet's series, by their labels."""
    found: dict[str, list[float]] = {}
    for line in made_up(end - 3600, end, 15).lines[name]:
        series, value, _ = line.rsplit(" ", 2)
        if all(f'{key}="{text}"' in series for key, text in labels.items()):
            found.setdefault(series, []).append(float(value))
    return found


def last_of(name: str, end: float, **labels: str) -> float:
    """Sum what counters ended with."""
    return sum(values[-1] for values in samples(name, end, **labels).values())


def test_the_headline_is_what_happened(answers: Answers, end: float) -> None:
    found = headline(answers)
    requests = last_of("agent_app_requests_total", end)
    assert found["Requests"] == pytest.approx(requests, rel=0.02)
    failed = last_of("agent_app_requests_total", end, status="500")
    assert found["Failed share"] == pytest.approx(failed / requests, rel=0.02)
    assert found["Tokens"] == pytest.approx(last_of("agent_app_tokens_total", end), rel=0.02)
    assert found["Availability"] == pytest.approx(1 - 240 / 3600, abs=0.01)
    assert found["Alerts"] == 2
    hottest = max(map(max, samples("gpu_temperature_celsius", end).values()))
    assert found["Hottest GPU"] == pytest.approx(hottest, rel=0.01)
    used = [sum(one) / len(one) for one in samples("gpu_utilization_ratio", end).values()]
    assert found["GPU use"] == pytest.approx(sum(used) / len(used), rel=0.02)
    median = 0.2 + 0.4 * 0.7
    assert median < found["First token, p95"] < BOUNDS[-1]


def test_cost_is_hardware_by_the_hour_and_energy_by_its_price(
    source: Prometheus, end: float
) -> None:
    prices = {"price_kwh": 1.0, "overhead": 2.0, "gpu_price": 8766.0, "years": 1.0}
    section = next(
        one
        for one in document(collect(source, Question(end, 3600, (), prices)))["sections"]
        if one["name"] == "cost"
    )
    found = {
        panel["title"]: panel["series"][0]["value"]
        for panel in section["panels"]
        if panel["kind"] == "stat" and panel["series"]
    }
    # Four GPUs for an hour, of which one was lost for the last 38 % of it.
    assert found["GPU hours"] == pytest.approx(4 - 0.38, abs=0.15)
    energy = last_of("gpu_energy_joules_total", end) / 3.6e6
    assert found["Energy of the GPUs"] == pytest.approx(energy, rel=0.03)
    assert found["of which electricity"] == pytest.approx(energy * 2, rel=0.03)
    assert found["Own hardware"] == pytest.approx(
        found["GPU hours"] + found["of which electricity"], rel=0.001
    )
    read, written = found["Tokens read"], found["Tokens written"]
    api = (read * 0.5 + written * 1.5) / 1e6
    assert found["The same tokens from an API"] == pytest.approx(api, rel=0.001)
    assert found["Own cost by the API's"] == pytest.approx(found["Own hardware"] / api, rel=0.001)


def test_a_fault_is_marked_where_it_shows(answers: Answers) -> None:
    told = {
        (section["name"], panel["title"]): panel
        for section in document(answers)["sections"]
        for panel in section["panels"]
    }
    assert told["gpu", "GPUs missing"]["alarm"] == "critical"
    assert told["gpu", "GPUs missing"]["series"] == [{"name": "", "value": 1.0}]
    lost = {one["name"]: one["last"] for one in told["gpu", "GPUs that answer"]["series"]}
    assert lost == {"gpu1 GPU 0": 1, "gpu1 GPU 1": 1, "gpu2 GPU 0": 1, "gpu2 GPU 1": 0}
    use = {one["name"]: one["last"] for one in told["gpu", "Use"]["series"]}
    assert use["gpu2 GPU 1"] is None  # it has no use any more, and the last one known is not it
    assert use["gpu1 GPU 0"] is not None
    assert [one["name"] for one in told["gpu", "XIDs"]["series"]] == ["gpu2 GPU 1 XID 79 (reboot)"]


def test_the_numbers_are_json(answers: Answers) -> None:
    told = json.loads(json.dumps(document(answers), allow_nan=False))
    assert [one["name"] for one in told["sections"]] == [board.name for board in DASHBOARDS]
    assert sum(len(one["panels"]) for one in told["sections"]) == count()
    assert told["format"] == 1


# -- the page -----------------------------------------------------------------------------------


def test_tags_match_and_ids_are_unique(text: str) -> None:
    page = Page(text)
    assert page.faults == []
    assert [name for name, many in Counter(page.all("id")).items() if many > 1] == []
    named = {word for words in page.all("aria-labelledby") for word in words.split()}
    anchors = {href.removeprefix("#") for href in page.all("href")}
    used = set(re.findall(r"url\(#([^)]+)\)", text))
    assert (named | anchors | used) <= set(page.all("id"))


def test_it_needs_nothing_beside_itself(text: str) -> None:
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, have in page.elements for name in have if name.startswith("on")]
    assert page.all("src") == []
    assert all(href.startswith("#") for href in page.all("href"))
    assert "@import" not in text
    outside = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert outside <= {"http://www.w3.org/2000/svg"}
    assert "Content-Security-Policy" in text
    assert len(text) < 2_000_000


def test_what_the_fleet_says_is_text_and_never_markup(text: str) -> None:
    assert HOSTILE not in text
    assert "&lt;/svg&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_pictures_have_names_and_lines_differ_without_colour(text: str) -> None:
    page = Page(text)
    pictures = [have for tag, have in page.elements if tag == "svg"]
    assert len(pictures) > 60
    assert all("aria-labelledby" in have or have.get("aria-hidden") for have in pictures)
    assert "stroke-dasharray" in text
    assert "#0a0b" not in text, "a colour that stands for another"
    for scheme in ("prefers-color-scheme: dark", "@media print"):
        assert scheme in text


def test_values_and_their_alarms_are_words(text: str) -> None:
    assert "critical: from 1" in text  # one GPU is missing
    assert "warning: from 85 %" in text  # a disk
    assert re.search(r"<td class=\"bad\">down</td>", text)
    assert "None in this period." in text


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory, end: float) -> Answers:
    folder = tmp_path_factory.mktemp("nothing")
    (folder / "prometheus.yml").write_text("global: {}\n")
    with prometheus_server(folder / "prometheus.yml") as url:
        found = Prometheus(Service(url, "prometheus.service", "node1"))
        return collect(found, Question(end, 3600))


def test_a_fleet_that_nobody_watched_has_a_page_that_says_so(nothing: Answers) -> None:
    text = write_page(nothing, "agent.example.com", UTC)
    assert Page(text).faults == []
    for job in Job:
        assert f"Prometheus watches no target of job {job}." in text
    assert "<svg" not in text


def test_why_there_is_nothing() -> None:
    one = graph("t", "d.", Job.GPU, ("x", "y"))
    assert why_empty(one, set()) == "No data: Prometheus watches no target of job gpu."
    assert why_empty(one, {"gpu"}) == "No data, although targets of job gpu are watched."
    quiet = graph("t", "d.", Job.GPU, ("x", "y"), events=True)
    assert why_empty(quiet, {"gpu"}) == "None in this period."
    assert why_empty(quiet, set()).startswith("No data")
    now = table("t", "d.", Job.GPU, "x", "y", events=True)
    assert why_empty(now, {"gpu"}) == "None now."
    rare = graph("t", "d.", Job.GPU, ("x", "y"), optional="it is off")
    assert why_empty(rare, {"gpu"}) == "No data: it is off."


# -- drawing ------------------------------------------------------------------------------------

QUESTION = Question(end=36000.0, seconds=3600.0)


def line(name: str, *values: float, start: float = 32400.0, step: float = 15.0) -> Line:
    return Line(name, tuple((start + step * i, value) for i, value in enumerate(values)))


def test_no_line_is_drawn_where_nothing_is_known() -> None:
    points = broken([(0.0, 1.0), (15.0, 2.0), (60.0, 3.0)], 15.0)
    assert [moment for moment, _ in points] == [0.0, 15.0, 45.0, 60.0]
    assert math.isnan(points[2][1])


def test_a_graph_of_many_lines_shows_those_that_rise_highest() -> None:
    many = tuple(line(f"n{i:02}", float(i), float(i)) for i in range(20))
    answer = Answer(graph("t", "d.", Job.NODE, ("x", "y")), many)
    assert [one.name for one in shown(answer)] == [f"n{i}" for i in range(12, 20)]
    picture = draw(answer, QUESTION, UTC, "a-0")
    assert f"--series-{MOST_LINES - 1}" in picture
    assert picture == draw(answer, QUESTION, UTC, "a-0")


@pytest.mark.parametrize("kind", [Kind.GRAPH, Kind.STACK])
@pytest.mark.parametrize("values", [(0.0, 0.0), (5.0,), (1e-9, 2e-9), (-3.0, 2.0), (1e15, 2e15)])
def test_any_values_can_be_drawn(kind: Kind, values: tuple[float, ...]) -> None:
    answer = Answer(graph("t", "d.", Job.NODE, ("x", "y"), kind=kind), (line("a", *values),))
    assert draw(answer, QUESTION, UTC, "a-0").startswith("<svg")


def test_text_on_an_axis_is_not_rounded_as_coordinates_are() -> None:
    panel = graph("t", "d.", Job.NODE, ("x", "y"), thresholds=(warning(0.8),))
    picture = draw(Answer(panel, (line("a", 0.0, 0.9),)), QUESTION, UTC, "a-0")
    assert ">0.25<" in picture or ">0.2<" in picture
    assert not re.search(r'\bd="[^"]*\d\.\d\d', picture)
    assert ">warning<" in picture


def test_the_strip_of_a_state_has_its_gaps_and_falls() -> None:
    points = [
        (32400.0 + 15 * i, float(not 80 <= i < 120)) for i in range(241) if i < 160 or i > 200
    ]
    found = strips(Line("a", tuple(points)), QUESTION)
    assert [one.up for one in found] == [True, False, True, True]
    assert sum(one.width for one in found) == pytest.approx(100 - 100 * 41 / 240, abs=1)
    assert found[-1].left + found[-1].width == pytest.approx(100)
    assert up_share(Line("a", tuple(points))) == pytest.approx(160 / 200, abs=0.01)


def test_a_series_that_ended_rings_no_alarm() -> None:
    hot = graph("t", "d.", Job.GPU, ("x", "y"), thresholds=(warning(85),))
    now = Line("a", ((1.0, 90.0),))
    before = Line("a", ((1.0, 90.0),), ended=True)
    assert Answer(hot, (now,)).alarm == warning(85)
    assert Answer(hot, (before,)).alarm is None
    low = stat("t", "d.", Job.BLACKBOX, "x", thresholds=(warning(14, below=True),))
    assert Answer(low, (Line("", ((1.0, 13.0),)),)).alarm == warning(14, below=True)
    assert Answer(low, (Line("", ((1.0, 15.0),)),)).alarm is None


# -- in a browser -------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_a_browser_shows_it_without_a_complaint(
    text: str, tmp_path: Path, scheme: Any, width: int
) -> None:
    from playwright.async_api import async_playwright

    file = tmp_path / "report.html"
    file.write_text(text)
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        context = await browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        await page.goto(file.as_uri())
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        ink = await page.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
        unset = await page.evaluate(
            "[...document.querySelectorAll('.plot path, .plot text')].filter(e =>"
            " e.getAttribute('style')?.includes('var(--') &&"
            " !getComputedStyle(e).getPropertyValue('--ink')).length"
        )
        await browser.close()
    assert complaints == [file.as_uri()]
    assert unset == 0
    light = sum(map(int, re.findall(r"\d+", ink)[:3])) > 3 * 128
    assert light == (scheme == "dark")
