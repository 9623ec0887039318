"""What a playbook run did so far, told by its events. Pure: events in, facts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNROLED = "(play)"


@dataclass
class Counts:
    """Results on one host."""

    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Failure:
    """A task that failed on a host, with what the module said."""

    host: str
    role: str
    task: str
    message: str
    unreachable: bool = False


@dataclass
class Progress:
    """The state of a run; feed `observe` each event of ansible-runner in order."""

    play: str = ""
    role: str = ""
    task: str = ""
    tasks: int = 0
    hosts: dict[str, Counts] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    """Hosts at work on the current task, each with the time it began."""
    role_seconds: dict[str, float] = field(default_factory=dict)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    """(host, role, task) of every change."""
    failures: list[Failure] = field(default_factory=list)
    collect: str = ""
    """Full name of a module whose results are kept, secrets or not; none are otherwise."""
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By host, the first result of the module `collect` that was not skipped."""
    _task_began: float = 0.0

    def observe(self, name: str, data: Mapping[str, Any], now: float) -> None:
        """Take in one event.

        Args:
            name: the event's name, such as `runner_on_ok`.
            data: its `event_data`.
            now: seconds on a clock that only moves forward.
        """
        if name == "playbook_on_play_start":
            self.play = str(data.get("name", ""))
        elif name in ("playbook_on_task_start", "playbook_on_handler_task_start"):
            self._start_task(data, now)
        elif name == "runner_on_start":
            self.busy[str(data.get("host"))] = now
        elif name in _OUTCOMES:
            self._finish_task(_OUTCOMES[name], data)
        elif name == "playbook_on_stats":
            self._close_task(now)

    def _start_task(self, data: Mapping[str, Any], now: float) -> None:
        self._close_task(now)
        self.role = str(data.get("role") or UNROLED)
        self.task = str(data.get("task", ""))
        self.tasks += 1
        self.busy = {}

    def _close_task(self, now: float) -> None:
        if self.role and self._task_began:
            spent = now - self._task_began
            self.role_seconds[self.role] = self.role_seconds.get(self.role, 0.0) + spent
        self._task_began = now

    def _finish_task(self, outcome: str, data: Mapping[str, Any]) -> None:
        host = str(data.get("host", ""))
        result = data.get("res") or {}
        counts = self.hosts.setdefault(host, Counts())
        self.busy.pop(host, None)
        if self.collect and data.get("task_action") == self.collect and outcome != "skipped":
            self.results.setdefault(host, result)
        if outcome == "failed" and data.get("ignore_errors"):
            outcome = "ok"
        setattr(counts, outcome, getattr(counts, outcome) + 1)
        role, task = str(data.get("role") or UNROLED), str(data.get("task", ""))
        if outcome in ("failed", "unreachable"):
            message = explain(result)
            self.failures.append(Failure(host, role, task, message, outcome == "unreachable"))
        elif outcome == "ok" and result.get("changed"):
            counts.changed += 1
            self.changes.append((host, role, task))

    @property
    def changed(self) -> int:
        """Changes on all hosts together."""
        return sum(counts.changed for counts in self.hosts.values())


_OUTCOMES = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}


def explain(result: Mapping[str, Any]) -> str:
    """Return what a failed result says, the reason before the noise."""
    lines = [str(result.get("msg") or "the module gave no message").strip()]
    for item in result.get("results") or ():
        if isinstance(item, Mapping) and item.get("failed") and item.get("msg"):
            lines.append(f"{item.get('item', '')}: {item['msg']}".strip())
    for stream in ("stderr", "module_stderr", "stdout", "module_stdout"):
        text = str(result.get(stream) or "").strip()
        if text and text not in lines[0]:
            lines.append("\n".join(text.splitlines()[-10:]))
            break
    return "\n".join(lines)
