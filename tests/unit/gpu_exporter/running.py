"""The exporter as a process of its own, on a machine with simulated GPUs."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.unit.gpu_exporter.scraped import Scrape, parse
from tests.unit.gpu_simulator.simulated_machine import SimulatedMachine

PROGRAM = """
import json, sys
from ops.gpu_exporter import main, owners
units = json.loads(sys.argv[1])
owners.systemd_unit = lambda pid: units.get(str(pid), "")
raise SystemExit(main.main(sys.argv[2:]))
"""
SOON_S = 10.0


@dataclass
class Exporter:
    """An exporter that runs."""

    process: subprocess.Popen[str]
    port: int

    def scrape(self) -> Scrape:
        began = time.monotonic()
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=SOON_S) as answer:
            text = answer.read().decode()
        return parse(text, time.monotonic() - began)

    def until(self, holds: Callable[[Scrape], bool], seconds: float = SOON_S) -> Scrape:
        """Scrape until something holds; the page where it did."""
        end = time.monotonic() + seconds
        while not holds(page := self.scrape()):
            assert time.monotonic() < end, page.text
            time.sleep(0.05)
        return page

    def ended(self, seconds: float = SOON_S) -> int:
        return self.process.wait(seconds)


@contextlib.contextmanager
def exporter(
    machine: SimulatedMachine, *arguments: str, units: Mapping[int, str] | None = None
) -> Iterator[Exporter]:
    """Run it until the block ends; `units` are the systemd units of process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--port", str(port), "--procfs", str(machine.root / "proc"), *arguments]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(units or {}), *words],
        env=machine.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        running = Exporter(process, port)
        end = time.monotonic() + SOON_S
        while True:
            with contextlib.suppress(OSError):
                page = running.scrape()
                if page.values("gpu_driver_error", error="no_answer") == []:
                    break
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                raise AssertionError(process.communicate()[1])
            time.sleep(0.05)
        yield running
    finally:
        process.kill()
        process.communicate()


def living(machine: SimulatedMachine, pid: int, name: str = "python", killed: bool = False) -> None:
    """Let a process live on the machine, or wait for its end after SIGKILL."""
    folder = machine.root / "proc" / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    pending = "0000000000000100" if killed else "0000000000000000"
    (folder / "status").write_text(
        f"Name:\t{name}\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\n"
    )
