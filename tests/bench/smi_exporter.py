"""The usual small exporter: `nvidia-smi -q` at every scrape, its numbers as gauges."""

import re
import subprocess
import sys
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

GPU = re.compile(r"^GPU (\S+)$")
LINE = re.compile(r"^ {4,}(\S.*?) +: (-?\d+(?:\.\d+)?)(?: \S+)?$")


class Smi(Collector):
    """Runs the program and reads its report."""

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        report = subprocess.run([sys.argv[2], "-q"], capture_output=True, text=True, check=True)
        family = GaugeMetricFamily("smi", "A line of the report.", labels=("gpu", "line", "key"))
        gpu = ""
        for number, line in enumerate(report.stdout.splitlines()):
            if found := GPU.match(line):
                gpu = found[1]
            elif found := LINE.match(line):
                family.add_metric((gpu, str(number), found[1]), float(found[2]))
        yield family


if __name__ == "__main__":
    registry = CollectorRegistry()
    registry.register(Smi())
    _, thread = start_http_server(int(sys.argv[1]), "127.0.0.1", registry)
    thread.join()
