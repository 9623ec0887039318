"""A report for people: a table of hosts, then each finding, worst first. Plain text with styles."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from ops.doctor.finding import (
    CRITICAL,
    INFO,
    SEVERITIES,
    WARNING,
    Case,
    Finding,
    HostReport,
    Report,
    hosts_worst_first,
)

STYLES = {
    CRITICAL: "bold red",
    WARNING: "yellow",
    INFO: "cyan",
}
NARROWEST = 40
Piece = tuple[str, str]
"""A text and its style; a line is several."""
Line = Sequence[Piece]


def draw(report: Report, width: int) -> Iterator[Line]:
    """Yield the lines of a report.

    Args:
        report: What the doctor found.
        width: Columns of the terminal.
    """
    width = max(NARROWEST, width)
    hosts = hosts_worst_first(report.hosts)
    if len(hosts) > 1:
        yield from _table(hosts)
    for host in hosts:
        yield ()
        yield from _host(host, width)
    yield ()
    yield from _sum(report)


def _table(hosts: Sequence[HostReport]) -> Iterator[Line]:
    room = max(len("HOST"), *(len(host.host) for host in hosts))
    yield ((f"{'HOST':<{room}}  CRITICAL  WARNING  INFO", "bold"),)
    for host in hosts:
        name = (f"{host.host:<{room}}  ", "")
        if host.problem:
            yield (name, ("could not be asked", STYLES[CRITICAL]))
            continue
        cells = [name]
        for severity, wide in zip(SEVERITIES, (8, 7, 4), strict=True):
            count = sum(finding.severity == severity for finding in host.findings)
            style = STYLES[severity] if count else "dim"
            cells.append((f"{count or '-':>{wide}}  ", style))
        yield cells


def _host(host: HostReport, width: int) -> Iterator[Line]:
    verdict = ("could not be asked", "red") if host.problem else ("nothing found", "green")
    if host.problem or not host.findings:
        yield ((host.host, "bold"), (": ", ""), verdict)
    else:
        yield ((host.host, "bold"),)
    if host.problem:
        yield from _field("Cause", host.problem, width)
        yield from _field("Cure", host.cure, width, style="bold")
    for finding in host.findings:
        yield from _finding(finding, width)
    for complaint in host.complaints:
        yield from _field("Untold", complaint, width, style="dim")


def _finding(finding: Finding, width: int) -> Iterator[Line]:
    """Severity and subject, symptom; then cause, cure, evidence and the case's name."""
    style = STYLES[finding.severity]
    head = f"  {finding.severity:<8}  "
    told = finding.subject in finding.symptom
    text = finding.symptom if told else f"{finding.subject}: {finding.symptom}"
    first, *rest = _wrap(text, width - len(head)) or [""]
    yield ((head, style), (first, "bold"))
    for line in rest:
        yield ((" " * len(head) + line, "bold"),)
    yield from _field("Cause", finding.cause, width)
    yield from _field("Cure", finding.cure, width, style="green")
    for number, line in enumerate(finding.evidence):
        yield from _field("" if number else "Evidence", line, width, style="dim")


def _field(name: str, text: str, width: int, style: str = "") -> Iterator[Line]:
    head = f"    {name:<8}  "
    for number, line in enumerate(_wrap(text, width - len(head)) or [""]):
        yield ((head if number == 0 else " " * len(head), "dim"), (line, style))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, break_long_words=True, break_on_hyphens=False, replace_whitespace=True
    )


def draw_case(layer: str, case: Case, width: int) -> Iterator[Line]:
    """Yield the lines of a case of the catalogue; what a host would fill in is in capitals."""
    width = max(NARROWEST, width)
    yield ((case.name, "bold"), (f"  {case.severity}, {layer}", STYLES[case.severity]))
    for name, text in (("Symptom", case.symptom), ("Cause", case.cause), ("Cure", case.cure)):
        yield from _field(name, filled(text), width)
    yield ()


def filled(text: str) -> str:
    """Return a template with its values' names in capitals."""
    return text.format_map(_Capitals())


class _Capitals(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return key.upper()


def _sum(report: Report) -> Iterator[Line]:
    unasked = sum(bool(host.problem) for host in report.hosts)
    counts = [(severity, report.count(severity)) for severity in SEVERITIES]
    told = ", ".join(f"{count} {severity}" for severity, count in counts if count)
    text = told or ("healthy" if not unasked else "nothing found on the others")
    if unasked:
        text += f"; {unasked} of {len(report.hosts)} hosts could not be asked"
    well = not (told or unasked)
    seconds = f" in {report.seconds:.1f} seconds"
    yield ((text, "green" if well else ""), (seconds, "dim"))
