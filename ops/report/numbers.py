"""A report's numbers for a script."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ops.dashboards.headline import HEADLINE
from ops.dashboards.panel import Kind
from ops.report.answers import Answer, Answers

FORMAT = 1


def document(answers: Answers) -> dict[str, Any]:
    """Return all numbers as JSON takes them; keys stay within a format."""
    question = answers.question
    return {
        "format": FORMAT,
        "start": _moment(question.start),
        "end": _moment(question.end),
        "step_seconds": question.step,
        "hosts": list(question.hosts),
        "headline": [_panel(answers.of(panel)) for panel in HEADLINE],
        "sections": [
            {
                "name": board.name,
                "title": board.title,
                "panels": [_panel(answer) for answer in found],
            }
            for board, found in answers.sections
        ],
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _panel(answer: Answer) -> dict[str, Any]:
    panel = answer.panel
    alarm = answer.alarm
    return {
        "title": panel.title,
        "kind": panel.kind.value,
        "unit": panel.unit.grafana,
        "alarm": alarm.word if alarm else None,
        "why_empty": answer.why or None,
        "series": [
            {"name": line.name, "value": line.last}
            if panel.kind in (Kind.STAT, Kind.TABLE)
            else {
                "name": line.name,
                "min": min(line.values),
                "mean": line.mean,
                "max": max(line.values),
                "last": line.last,
            }
            for line in answer.lines
        ],
    }
