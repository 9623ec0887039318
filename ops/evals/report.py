"""What a suite found: shares, times, and what got worse than the baseline. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ops.evals.suite import Suite

FORMAT = 1


@dataclass(frozen=True)
class CaseResult:
    """One case over its repetitions."""

    id: str
    weight: float
    passed: int
    asked: int
    why: tuple[str, ...] = ()
    """Why, once for each different reason."""

    @property
    def share(self) -> float:
        """Of the repetitions that passed."""
        return self.passed / self.asked


@dataclass(frozen=True)
class Report:
    """A suite's result.

    Attributes:
        suite: Its name.
        model: The served name.
        revision: What served, for people.
        cases: In the suite's order.
        first_token: Seconds of each answer.
        whole: Seconds of each answer.
        tokens: Made in all.
        seconds: Wall clock of the whole suite.
        at: Seconds since the epoch.
    """

    suite: str
    model: str
    revision: str
    cases: tuple[CaseResult, ...]
    first_token: tuple[float, ...]
    whole: tuple[float, ...]
    tokens: int
    seconds: float
    at: float
    format: int = FORMAT
    findings: tuple[str, ...] = field(default=())
    """Why it does not pass; empty when it does."""

    @property
    def share(self) -> float:
        """The weighted share of cases that pass."""
        total = sum(case.weight for case in self.cases)
        return sum(case.weight * case.share for case in self.cases) / total

    @property
    def tokens_per_second(self) -> float:
        """Of all streams together."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def as_record(self) -> dict[str, Any]:
        """For programs."""
        return {
            **asdict(self),
            "share": round(self.share, 6),
            "passed": not self.findings,
            "first_token_p95_seconds": round(p95(self.first_token), 4),
            "answer_p95_seconds": round(p95(self.whole), 4),
            "tokens_per_second": round(self.tokens_per_second, 2),
        }

    def as_baseline(self) -> dict[str, Any]:
        """Small, to be stored: of the times only their 95th percentile."""
        record = self.as_record()
        return {
            **record,
            "first_token": [record["first_token_p95_seconds"]],
            "whole": [record["answer_p95_seconds"]],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Report:
        """Read a stored one."""
        cases = tuple(CaseResult(**{**c, "why": tuple(c["why"])}) for c in record["cases"])
        names = ("suite", "model", "revision", "tokens", "seconds", "at", "format")
        return cls(
            **{name: record[name] for name in names},
            cases=cases,
            first_token=tuple(record["first_token"]),
            whole=tuple(record["whole"]),
            findings=tuple(record["findings"]),
        )


def p95(values: tuple[float, ...]) -> float:
    """The nearest-rank 95th percentile, 0 of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))] if ranked else 0.0


def findings(report: Report, suite: Suite, baseline: Report | None) -> tuple[str, ...]:
    """Return why a result does not pass: its own bar, its budget, its baseline."""
    found = []
    if report.share < suite.pass_share - 1e-9:
        found.append(f"{report.share:.1%} of the suite pass, {suite.pass_share:.1%} are wanted")
    budget = suite.budget
    for name, value, most in (
        ("the first token", p95(report.first_token), budget.first_token_p95_seconds),
        ("an answer", p95(report.whole), budget.answer_p95_seconds),
    ):
        if most and value > most:
            found.append(f"{name} takes {value:.2f} s at the 95th percentile, {most:.2f} s allowed")
    if budget.tokens_per_second and report.tokens_per_second < budget.tokens_per_second:
        found.append(
            f"{report.tokens_per_second:.0f} tokens/s, {budget.tokens_per_second:.0f} are wanted"
        )
    if baseline is not None and report.share < baseline.share - suite.tolerance - 1e-9:
        found.append(
            f"{report.share:.1%} pass, {baseline.share:.1%} did with {baseline.revision}: "
            + ", ".join(worse(report, baseline))
        )
    return tuple(found)


def worse(report: Report, baseline: Report) -> list[str]:
    """Cases that passed more often before."""
    before = {case.id: case.share for case in baseline.cases}
    return [case.id for case in report.cases if case.share < before.get(case.id, 0.0)]


def page(report: Report, baseline: Report | None) -> str:
    """One HTML page that needs nothing else."""
    before = {case.id: case for case in baseline.cases} if baseline else {}
    rows = []
    for case in report.cases:
        old = before.get(case.id)
        change = (
            ""
            if old is None
            else f"{case.share - old.share:+.0%}"
            if case.share != old.share
            else "="
        )
        state = "pass" if case.passed == case.asked else "fail"
        why = "<br>".join(html.escape(text) for text in case.why)
        rows.append(
            f'<tr class="{state}"><td>{html.escape(case.id)}</td><td>{case.weight:g}</td>'
            f"<td>{case.passed} of {case.asked}</td><td>{change}</td><td>{why}</td></tr>"
        )
    verdict = "passes" if not report.findings else "does not pass"
    against = (
        f", against {html.escape(baseline.revision)}: {baseline.share:.1%}" if baseline else ""
    )
    reasons = "".join(f"<li>{html.escape(text)}</li>" for text in report.findings)
    return PAGE.format(
        title=html.escape(f"{report.suite}: {report.model} {report.revision}"),
        verdict=f"{report.share:.1%}, {verdict}{against}",
        reasons=f"<ul>{reasons}</ul>" if reasons else "",
        figures=f"First token {p95(report.first_token) * 1000:.0f} ms, answer "
        f"{p95(report.whole):.2f} s at the 95th percentile; "
        f"{report.tokens_per_second:.0f} tokens/s; {report.seconds:.1f} s in all.",
        rows="\n".join(rows),
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .8rem; }}
td, th {{ border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }}
.fail td:nth-child(3) {{ color: light-dark(#b3261e, #ff8a80); font-weight: 600; }}
.pass td:nth-child(3) {{ color: light-dark(#1b6e3c, #7ddc9f); }}
</style></head><body>
<h1>{title}</h1>
<p><strong>{verdict}</strong></p>
{reasons}
<p>{figures}</p>
<table><thead><tr><th>Case</th><th>Weight</th><th>Passed</th><th>Change</th>
<th>Why not</th></tr></thead>
<tbody>
{rows}
</tbody></table>
</body></html>
"""
