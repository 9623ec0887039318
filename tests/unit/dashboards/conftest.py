"""An hour of a made-up fleet in a real Prometheus, and the report's answers of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from history import made_up
from servers import prometheus_server

from ops.monitoring import Prometheus, Service
from ops.report.answers import Answers, collect
from ops.report.question import Question

HOUR = 3600.0
STEP = 15.0


@pytest.fixture(scope="session")
def end() -> float:
    return time.time()


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, end: float) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("past")
    (folder / "prometheus.yml").write_text("global: {}\n")
    made_up(end - HOUR, end, STEP).import_into(folder)
    with prometheus_server(folder / "prometheus.yml") as url:
        yield Prometheus(Service(url, "prometheus.service", "node1"))


@pytest.fixture(scope="session")
def answers(source: Prometheus, end: float) -> Answers:
    return collect(source, Question(end, HOUR))
