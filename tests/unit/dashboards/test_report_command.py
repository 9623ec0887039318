"""`ops report`: what it takes, what it writes, and mistakes that it tells before any work."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from typer.testing import CliRunner

import ops.monitoring
from ops.cli import report as command
from ops.errors import InputError
from ops.monitoring import Prometheus, Sample, Series
from ops.report.question import Question, parse_prices, parse_since

# -- questions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "seconds"), [("90m", 5400), ("24h", 86400), ("7d", 604800), (" 2w ", 1209600)]
)
def test_periods(word: str, seconds: float) -> None:
    assert parse_since(word) == seconds


@pytest.mark.parametrize("word", ["", "24", "1m", "h", "-1h", "3y", "500d", "1.5h"])
def test_what_is_no_period_is_told(word: str) -> None:
    with pytest.raises(InputError):
        parse_since(word)


@pytest.mark.parametrize(("seconds", "step"), [(300, 15), (3600, 15), (86400, 360), (604800, 2520)])
def test_a_graph_has_as_many_points_as_can_be_seen(seconds: float, step: float) -> None:
    question = Question(0, seconds)
    assert question.step == step
    window = int(question.values["__rate_interval"].removesuffix("s"))
    assert window >= max(60, step)


def test_prices() -> None:
    assert parse_prices(["price_kwh=0.25", "years=4"]) == {"price_kwh": 0.25, "years": 4.0}
    for wrong in ("price_kwh", "price_kwh=x", "price_kwh=0", "price_kwh=inf", "beer=3"):
        with pytest.raises(InputError, match="sets no price"):
            parse_prices([wrong])


# -- the command --------------------------------------------------------------------------------

INVENTORY = "inventories/fleet"


class Recorded:
    """A source that answers from what a real one said."""

    def __init__(self, source: Prometheus, end: float) -> None:
        self.source, self.end = source, end

    def query(self, expression: str, *, at: float | None = None) -> list[Sample]:
        assert at is not None
        return self.source.query(expression, at=self.end)

    def query_range(self, expression: str, **when: float) -> list[Series]:
        return self.source.query_range(expression, **when)


@pytest.fixture
def runner(source: Prometheus, end: float, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    there = contextlib.nullcontext(Recorded(source, end))
    monkeypatch.setattr(ops.monitoring, "prometheus", lambda fleet: there)
    return CliRunner()


def test_the_command_writes_a_page(runner: CliRunner, tmp_path: Path) -> None:
    out = tmp_path / "week.html"
    done = runner.invoke(command.app, ["-i", INVENTORY, "--since", "1h", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert Page(out.read_text()).faults == []
    assert out.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["week.html"]


def test_json_needs_no_page(runner: CliRunner, tmp_path: Path, monkeypatch: Any) -> None:
    done = runner.invoke(command.app, ["-i", INVENTORY, "--json", "--since", "1h"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["hosts"] == []
    assert not Path("report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "soon"], "is no period"),
        (["--price", "beer=3"], "sets no price"),
        (["--out", "/nowhere/at/all.html"], "there is no folder"),
        (["--out", "/"], "it is a folder"),
        (["--limit", "gpu9"], "gpu9 is no host"),
    ],
)
def test_mistakes_are_told_before_any_work(
    runner: CliRunner, arguments: list[str], said: str
) -> None:
    done = runner.invoke(command.app, ["-i", INVENTORY, *arguments])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
