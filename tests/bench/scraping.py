"""What a scrape of an exporter costs it: time, CPU, memory."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ops.places import ROOT
from tests.unit.gpu_exporter.scraped import parse

SCRAPES = 30
EVERY_S = 1.0
IDLE_S = 15.0
SETTLE_S = 3.0
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """What one exporter cost."""

    samples: int
    median_ms: float
    slowest_ms: float
    idle_ms: float  # of CPU, per second without a scrape
    cpu_ms: float  # per scrape, beyond that
    peak_mb: float
    hung: str = ""  # what its page is worth while one GPU hangs


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str] | None, port: int) -> Iterator[int]:
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            end = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError):
                    scrape(port)
                    break
                assert process.poll() is None and time.monotonic() < end, command
                time.sleep(0.1)
            time.sleep(SETTLE_S)
            yield process.pid
        finally:
            process.kill()


def scrape(port: int, timeout: float = 30) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as answer:
        text: str = answer.read().decode()
    return text


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, and of the children that it has waited for."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / TICK


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measure(pid: int, port: int) -> Measured:
    before = cpu_s(pid)
    time.sleep(IDLE_S)
    idle = (cpu_s(pid) - before) / IDLE_S
    spent, text = [], ""
    began, before = time.monotonic(), cpu_s(pid)
    for number in range(SCRAPES):
        time.sleep(max(0.0, began + number * EVERY_S - time.monotonic()))
        at = time.monotonic()
        text = scrape(port)
        spent.append((time.monotonic() - at) * 1000)
    lasted = time.monotonic() - began
    cpu = (cpu_s(pid) - before - idle * lasted) / SCRAPES
    return Measured(
        samples=sum(len(rows) for rows in parse(text).samples.values()),
        median_ms=statistics.median(spent),
        slowest_ms=max(spent),
        idle_ms=idle * 1000,
        cpu_ms=max(0.0, cpu * 1000),
        peak_mb=peak_mb(pid),
    )


HEADINGS = (
    "exporter",
    "samples",
    "scrape, median",
    "slowest",
    "CPU per second, idle",
    "CPU per scrape",
    "CPU per sample",
    "memory, peak",
)


def cells(each: Measured) -> tuple[str, ...]:
    """The row of an exporter, without its name."""
    return (
        str(each.samples),
        f"{each.median_ms:.1f} ms",
        f"{each.slowest_ms:.1f} ms",
        f"{each.idle_ms:.1f} ms",
        f"{each.cpu_ms:.1f} ms",
        f"{(each.idle_ms + each.cpu_ms) / each.samples * 1000:.1f} µs",
        f"{each.peak_mb:.0f} MB",
    )
