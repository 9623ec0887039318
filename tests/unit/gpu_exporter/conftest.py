"""A machine with two H100, its driver 580 installed and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.lab.gpu.catalogue import parse_gpus
from tests.unit.gpu_exporter.running import living
from tests.unit.gpu_simulator.simulated_machine import SimulatedMachine


@pytest.fixture
def machine(tmp_path: Path) -> SimulatedMachine:
    made = SimulatedMachine(tmp_path)
    made.install()
    made.load()
    made.describe(parse_gpus("H100:2"))
    living(made, 1, "systemd")
    return made
