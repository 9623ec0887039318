"""The evidence of a machine that is well, and a simulated GPU machine to gather some from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ops.doctor.evidence import command, gpu
from ops.doctor.evidence.gpu_hardware import LoadedModule
from ops.lab.gpu.catalogue import parse_gpus
from tests.unit.doctor.healthy import HEALTHY
from tests.unit.gpu_simulator.simulated_machine import VERSION, SimulatedMachine


@pytest.fixture
def healthy() -> dict[str, Any]:
    return copy.deepcopy(HEALTHY)


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedMachine:
    """Two H100 that nvidia-smi, the real program of the simulator, tells of."""
    made = SimulatedMachine(tmp_path)
    made.install()
    made.load()
    made.describe(parse_gpus("H100:2"))
    path = f"{made.root / 'lib'}:{command.ENVIRONMENT['PATH']}"
    monkeypatch.setattr(command, "ENVIRONMENT", {**made.environment, "PATH": path, "LC_ALL": "C"})
    nodes = ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")
    monkeypatch.setattr(gpu, "node_names", lambda: list(nodes))
    monkeypatch.setattr(gpu, "gpus", lambda: ["0x2330", "0x2330"])
    monkeypatch.setattr(gpu, "loaded_driver", lambda: LoadedModule(VERSION, "open"))
    monkeypatch.setattr(gpu, "module", lambda _kernel: {"version": VERSION, "flavour": "open"})
    return made
