"""`ops` as an operator at a terminal runs it, who may die at any step."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stack import Stack

SECONDS = 600


@dataclass
class Said:
    """What a command ended with; `events` where it told JSON lines."""

    status: int
    output: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The operation's name."""
        return str(next(e["operation"] for e in self.events if e["event"] == "opened"))

    @property
    def took(self) -> float:
        """Seconds from the lock to the last event."""
        opened = next(e["at"] for e in self.events if e["event"] == "opened")
        return float(self.events[-1]["at"] - opened)

    def seconds(self) -> dict[str, float]:
        """Wall clock by kind of step."""
        found: dict[str, float] = {}
        for event in self.events:
            if event["event"] == "done":
                found[event["kind"]] = found.get(event["kind"], 0.0) + event.get("seconds", 0.0)
        return found


def ops(stack: Stack, *words: str, status: int | None = 0) -> Said:
    """Run a command to its end."""
    done = subprocess.run(
        ["ops", *words, "-i", str(stack.lab.inventory)],
        cwd=stack.lab.checkout, env=stack.lab.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert status is None or done.returncode == status, output[-6000:]
    return Said(done.returncode, output, _events(done.stdout))


def ops_told(stack: Stack, *words: str, status: int = 0) -> Said:
    """Run a command that tells events to its end."""
    said = ops_until(stack, *words, dies=lambda _: False)
    assert said.status == status, said.output[-6000:]
    return said


def ops_until(stack: Stack, *words: str, dies: Callable[[dict[str, Any]], bool]) -> Said:
    """Run a command that tells events, and SIGKILL it and all its children at one of them."""
    with subprocess.Popen(
        ["ops", *words, "--json", "-i", str(stack.lab.inventory)],
        cwd=stack.lab.checkout, env=stack.lab.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if dies(json.loads(line)):
                os.killpg(process.pid, signal.SIGKILL)
                break
        output = "".join(lines) + process.stderr.read()
    return Said(process.wait(), output, _events("".join(lines)))


def status_of(stack: Stack, said: Said) -> str:
    """How the operation of a command stands, as another command tells it."""
    told = json.loads(ops(stack, "history", "--json").output)["operations"]
    return str(next(found["status"] for found in told if found["id"] == said.id))


def wait_until_free(stack: Stack, died: Said, most_seconds: float) -> tuple[float, str]:
    """Wait until a dead operator holds the lock no more; return the seconds, and how it stands."""
    killed = time.monotonic()
    while (status := status_of(stack, died)) == "running":
        assert time.monotonic() - killed < most_seconds, "the dead still hold the lock"
    return time.monotonic() - killed, status


def _events(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            found.append(event)
    return found
