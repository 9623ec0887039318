"""Show a playbook run: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ops.playbook.progress import Progress


class View(AbstractContextManager["View"]):
    """Shows a run while it goes on; a context manager, and an observer for `run_playbook`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self.progress = Progress()
        self._role = ""
        self._spinner = Spinner("dots")
        self._shown_changes = 0
        self._live = (
            Live(console=console, get_renderable=self.render, refresh_per_second=8, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, name: str, progress: Progress, text: str) -> None:
        """Take in one event."""
        self.progress = progress
        if progress.role != self._role:
            self._role = progress.role
            if self._live is None:
                self.console.print(f"[{self.seconds():6.1f} s] {progress.role}", markup=False)
        if name.endswith("file_diff") and text:
            self.console.print(Text.from_ansi(text), soft_wrap=True)
        for host, role, task in progress.changes[self._shown_changes :]:
            self.console.print(
                f"[{self.seconds():6.1f} s] changed {host}  {role}: {bare(task, role)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        self._shown_changes = len(progress.changes)

    def seconds(self) -> float:
        """Seconds since the view began."""
        return time.monotonic() - self.began

    def render(self) -> RenderableType:
        """Draw the line of the run and one line for each busy host."""
        progress, now = self.progress, time.monotonic()
        changed = f", {progress.changed} changed" if progress.changed else ""
        self._spinner.update(
            text=f"{self.seconds():4.0f} s  {progress.play or 'starting'}"
            f"  ({progress.tasks} tasks{changed})"
        )
        lines: list[RenderableType] = [self._spinner]
        for host, began in list(progress.busy.items()):
            task = bare(progress.task, progress.role)
            lines.append(Text(f"    {host:12} {progress.role} · {task}  {now - began:.0f} s"))
        return Group(*lines)


def bare(task: str, role: str) -> str:
    """Return a task's name without the role that Ansible puts before it."""
    return task.removeprefix(f"{role} : ")


def print_summary(console: Console, progress: Progress, seconds: float) -> None:
    """Print the time of each role, the counts of each host, and every failure."""
    for failure in progress.failures:
        console.print(f"\nfailed on {failure.host}", style="bold red", highlight=False)
        console.print(f"  {failure.role}: {bare(failure.task, failure.role)}", markup=False)
        console.print(Text(indent(failure.message), style="red"), soft_wrap=True)
        cure = (
            f"check that you can log in: ssh to {failure.host}, with the inventory's user and key"
            if failure.unreachable
            else "correct what it names, then run the same command again"
        )
        console.print(f"  cure:  {cure}", markup=False, highlight=False, soft_wrap=True)
    roles = Table(box=None, pad_edge=False, show_header=False)
    for role, spent in sorted(progress.role_seconds.items(), key=lambda pair: -pair[1]):
        if spent >= 0.1:
            roles.add_row(role, f"{spent:6.1f} s")
    console.print(roles)
    for host, counts in sorted(progress.hosts.items()):
        parts = [f"{counts.ok} ok", f"{counts.changed} changed"]
        parts += [f"{counts.failed} failed"] if counts.failed else []
        parts += ["unreachable"] if counts.unreachable else []
        console.print(f"{host}: {', '.join(parts)}", markup=False, highlight=False)
    console.print(f"{progress.tasks} tasks in {seconds:.1f} seconds", highlight=False)


def indent(text: str) -> str:
    """Indent each line by two spaces."""
    return "\n".join(f"  {line}" for line in text.splitlines())
