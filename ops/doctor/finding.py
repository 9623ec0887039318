"""What the doctor finds: a case of the catalogue on a host, with its evidence."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

MOST_EVIDENCE = 6
MOST_LETTERS = 400
FORMAT = 1


Severity = Literal["critical", "warning", "info"]
"""How bad: `critical` stops something, `warning` is about to, `info` is worth knowing."""
CRITICAL: Severity = "critical"
WARNING: Severity = "warning"
INFO: Severity = "info"
SEVERITIES = (CRITICAL, WARNING, INFO)
ORDER = {severity: place for place, severity in enumerate(SEVERITIES)}


@dataclass(frozen=True)
class Case:
    """A known ailment; its texts are templates, filled with what a rule knows.

    Attributes:
        name: Stable, for programs and `--explain`.
        severity: How bad.
        symptom: What a person sees.
        cause: Why it is so.
        cure: The command to run; `{host}` is the inventory's name of the host.
        patterns: Regular expressions of the log lines that tell it; named groups fill the texts.
    """

    name: str
    severity: Severity
    symptom: str
    cause: str
    cure: str
    patterns: tuple[str, ...] = ()

    def found(
        self, host: str, subject: str, *evidence: str, severity: Severity | None = None,
        **values: Any,
    ) -> Finding:  # fmt: skip
        """Return it as found on a host.

        Args:
            host: The inventory's name.
            subject: The unit, slot, GPU, disk or file.
            evidence: Lines that show it.
            severity: Another than the usual one.
            values: What its texts name.
        """
        known = _Known({**values, "host": host, "subject": subject})
        return Finding(
            host=host,
            subject=subject,
            case=self.name,
            severity=severity or self.severity,
            symptom=self.symptom.format_map(known),
            cause=self.cause.format_map(known),
            cure=self.cure.format_map(known),
            evidence=tuple(line.strip()[:MOST_LETTERS] for line in evidence if line.strip())[
                :MOST_EVIDENCE
            ],
        )


class _Known(dict[str, Any]):
    """What a log does not tell is a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"


@dataclass(frozen=True)
class Finding:
    """A case found on a host; texts are for people, `case` for programs."""

    host: str
    subject: str
    case: str
    severity: Severity
    symptom: str
    cause: str
    cure: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostReport:
    """One host: its findings, worst first; `problem` says why nothing is known."""

    host: str
    findings: tuple[Finding, ...] = ()
    problem: str = ""
    cure: str = ""
    complaints: tuple[str, ...] = ()
    """What could not be told."""

    @property
    def worst(self) -> Severity | None:
        """Of its findings."""
        return min((f.severity for f in self.findings), key=ORDER.__getitem__, default=None)


@dataclass(frozen=True)
class Report:
    """What the doctor has to say of all hosts."""

    hosts: tuple[HostReport, ...]
    at: float = 0.0
    seconds: float = field(default=0.0, compare=False)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all hosts."""
        return tuple(finding for host in self.hosts for finding in host.findings)

    def count(self, severity: Severity) -> int:
        """How many findings are that bad."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1: something critical; 2: not so, but a host could not be asked; 0: neither."""
        if self.count(CRITICAL):
            return 1
        return 2 if any(host.problem for host in self.hosts) else 0

    def as_record(self) -> Mapping[str, Any]:
        """The document of `--json`."""
        return {
            "format": FORMAT,
            "at": self.at,
            "seconds": round(self.seconds, 2),
            "exit_code": self.exit_code,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "hosts": [{**asdict(host), "worst": host.worst} for host in self.hosts],
        }


def dated(line: str) -> str:
    """Return a line of the kernel's log with its seconds since 1970 as a moment."""
    seconds, _, text = line.partition(" ")
    try:
        moment = time.gmtime(float(seconds))
    except ValueError:
        return line
    return f"{time.strftime('%Y-%m-%d %H:%M:%SZ', moment)} {text}"


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings, causes before what they bring about; keep one of each case and subject."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.case, finding.subject), finding)
    return tuple(sorted(kept.values(), key=lambda f: ORDER[f.severity]))


def hosts_worst_first(hosts: Sequence[HostReport]) -> tuple[HostReport, ...]:
    """Sort hosts: those that could not be asked, then by their worst finding."""

    def place(report: HostReport) -> tuple[int, str]:
        if report.problem:
            return -1, report.host
        return (len(ORDER) if report.worst is None else ORDER[report.worst]), report.host

    return tuple(sorted(hosts, key=place))
