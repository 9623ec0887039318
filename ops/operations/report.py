"""Tells what an operation does: to a person at a terminal, or in JSON lines to a program."""

from __future__ import annotations

import json
import sys
import time
from typing import IO

from rich.console import Console
from rich.status import Status as Spinner

from ops.operations.journal import Event, Operation
from ops.operations.plan import Step

WORDS = {
    Event.DONE: ("done", "green"),
    Event.FAILED: ("failed", "bold red"),
    Event.UNDONE: ("brought back", "yellow"),
    Event.STUCK: ("not brought back", "bold red"),
}
OPENINGS = {"begin": "", "resume": "resumed: ", "abort": "aborting: "}


class PeopleReporter:
    """Tells a person: a line per step with its time, and what goes on while it lasts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner: Spinner | None = None
        self._steps = 0

    def opened(self, operation: Operation, how: str) -> None:
        """Head of the tale."""
        self._steps = len(operation.plan.steps)
        self._print(f"{OPENINGS[how]}operation {operation.id}", "bold")

    def step(self, number: int, step: Step, event: Event, seconds: float, why: str) -> None:
        """A line when a step has ended; before that a spinner where there is a terminal."""
        place = f"[{number + 1}/{self._steps}] {step.title}"
        if event in (Event.BEGIN, Event.UNDO):
            self._spin(f"{'back: ' if event == Event.UNDO else ''}{place}")
            return
        self._still()
        word, style = WORDS[event]
        took = f" {seconds:.1f} s" if seconds >= 0.05 else ""
        self._console.print(f"  {place} … ", end="", markup=False)
        self._console.print(word, style=style, end="")
        self._console.print(took, style="dim")
        for line in why.splitlines():
            self._console.print(f"      {line}", markup=False)

    def say(self, words: str) -> None:
        """Beside the spinner, or as a line where nothing can spin."""
        if self._spinner is not None and self._console.is_terminal:
            text = str(self._spinner.status).partition("  ·  ")[0]
            self._spinner.update(f"{text}  ·  {words}")
        else:
            self._print(f"      {words}", "dim")

    def _print(self, words: str, style: str) -> None:
        self._console.print(words, style=style, markup=False)

    def _spin(self, words: str) -> None:
        self._still()
        self._spinner = Spinner(words, console=self._console)
        if self._console.is_terminal:
            self._spinner.start()

    def _still(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class JsonReporter:
    """Tells a program: one JSON object per line, flushed, with seconds since the epoch."""

    def __init__(self, stream: IO[str] = sys.stdout) -> None:
        self._stream = stream

    def opened(self, operation: Operation, how: str) -> None:
        """The operation's id first: it names what to resume."""
        self._tell("opened", operation=operation.id, how=how, steps=len(operation.plan.steps))

    def step(self, number: int, step: Step, event: Event, seconds: float, why: str) -> None:
        """A step's event as the journal has it."""
        more = {"seconds": round(seconds, 3)} if seconds else {}
        self._tell(str(event), step=number, kind=step.kind, host=step.host, why=why, **more)

    def say(self, words: str) -> None:
        """What goes on within a step."""
        self._tell("say", words=words)

    def _tell(self, event: str, **fields: object) -> None:
        line = {"at": time.time(), "event": event, **fields}
        print(json.dumps(line), file=self._stream, flush=True)
