"""`gpu-exporter`: serve the page, or print it once."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.exposition import generate_latest

from ops.gpu_exporter import VERSION
from ops.gpu_exporter.owners import KNOWN_UNITS
from ops.gpu_exporter.page import Page, Settings

log = logging.getLogger(__name__)

PORT = 9835
CHECK_S = 2.0


def serve(settings: Settings, address: str = "127.0.0.1", port: int = PORT) -> int:
    """Serve the page until SIGTERM, or until only a new process can open the driver.

    Returns:
        The exit status; systemd starts the service again after either.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    page = Page(settings)
    registry = CollectorRegistry()
    registry.register(page)
    ProcessCollector(registry=registry)
    page.driver.start()
    start_http_server(port, address, registry)
    log.info("serving http://%s:%d/metrics", address, port)
    while not stop.wait(CHECK_S):
        if page.driver.outdated:
            log.warning("another driver is there than this process started with: starting anew")
            break
    return 0


def print_once(settings: Settings) -> int:
    """Print the page of now.

    Returns:
        0, or 1 where the driver does not open.
    """
    page = Page(settings)
    page.driver.start()
    page.driver.tried.wait(settings.deadline_s)
    registry = CollectorRegistry()
    registry.register(page)
    sys.stdout.write(generate_latest(registry).decode())
    return 1 if page.driver.error else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see `--help`."""
    parser = argparse.ArgumentParser(prog="gpu-exporter", description=__doc__)
    add = parser.add_argument
    add("--version", action="version", version=VERSION)
    add("--once", action="store_true", help="print the page and leave")
    add("--address", default="127.0.0.1", help="where to listen (%(default)s)")
    add("--port", type=int, default=PORT, help="(%(default)s)")
    add("--expected", type=int, default=0, metavar="GPUS", help="GPUs that the inventory says")
    add("--deadline", type=float, default=2.0, metavar="S", help="of a scrape (%(default)s)")
    add("--keep", type=float, default=60.0, metavar="S", help="show old readings (%(default)s)")
    add("--known-unit", action="append", metavar="GLOB", help="a unit that may hold GPU memory")
    add("--dcgm", action="store_true", help="show dcgm-exporter's names as well")
    add("--procfs", type=Path, default=Path("/proc"), help="(%(default)s)")
    add("--state", type=Path, default=os.environ.get("STATE_DIRECTORY"), help="folder to keep")
    add("--verbose", action="store_true", help="log every failed reading")
    given = parser.parse_args(arguments)
    level = logging.DEBUG if given.verbose else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")
    settings = Settings(
        expected=given.expected,
        deadline_s=given.deadline,
        keep_s=given.keep,
        known_units=tuple(given.known_unit or KNOWN_UNITS),
        state=Path(given.state) if given.state else None,
        dcgm=given.dcgm,
        procfs=given.procfs,
    )
    if given.once:
        return print_once(settings)
    return serve(settings, given.address, given.port)
