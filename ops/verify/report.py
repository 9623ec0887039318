"""What the checks found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    """One check on one host; `message` says what is wrong, or why it was passed over."""

    host: str
    part: str
    check: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """All results of a run, in order."""

    results: tuple[Result, ...]

    def count(self, outcome: Outcome) -> int:
        """How many checks ended so."""
        return sum(result.outcome == outcome for result in self.results)

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed."""
        return self.count("failed") == 0 and self.count("passed") > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "passed": self.passed,
            "counts": {name: self.count(name) for name in ("passed", "failed", "skipped")},
            "results": [asdict(result) for result in self.results],
        }
