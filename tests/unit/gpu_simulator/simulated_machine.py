"""A machine with simulated GPUs below a folder, and ways to ask its driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.lab.gpu.build import build
from ops.lab.gpu.description import Machine, parse_machine

VERSION = "580.178.04"
DEADLINE = 10  # seconds; no answer of a driver that does not hang takes a tenth of it
PROLOGUE = """
import json, sys
import pynvml as nvml
def answer(value): print(json.dumps(value), flush=True)
def error_of(call, *words):
    try:
        call(*words)
    except nvml.NVMLError as problem:
        return problem.value
    return 0
nvml.nvmlInit()
gpu = nvml.nvmlDeviceGetHandleByIndex({index})
"""


@dataclass(frozen=True)
class SimulatedMachine:
    root: Path

    @property
    def description(self) -> Path:
        return self.root / "etc/rackhand-simulator/gpus.conf"

    @property
    def events(self) -> Path:
        return self.root / "run/rackhand-simulator/xid"

    @property
    def environment(self) -> dict[str, str]:
        keep = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        return keep | {
            "RACKHAND_SIMULATOR_ROOT": str(self.root),
            "LD_LIBRARY_PATH": str(self.root / "lib"),
        }

    def install(self, version: str = VERSION) -> None:
        build(version, self.root / "lib")

    def load(self, version: str = VERSION) -> None:
        path = self.root / "proc/driver/nvidia/version"
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "NVIDIA UNIX Open Kernel Module for x86_64"
        path.write_text(f"NVRM version: {kind}  {version}  Release Build  (lab)\n")

    def unload(self) -> None:
        (self.root / "proc/driver/nvidia/version").unlink()

    def describe(self, machine: Machine) -> None:
        self.description.parent.mkdir(parents=True, exist_ok=True)
        self.events.parent.mkdir(parents=True, exist_ok=True)
        candidate = self.description.with_suffix(".new")
        candidate.write_text(machine.render())
        candidate.replace(self.description)

    def described(self) -> Machine:
        return parse_machine(self.description.read_text())

    def change(self, index: int, *words: str) -> None:
        self.describe(self.described().change(index, words))

    def report_xid(self, index: int, code: int) -> None:
        with self.events.open("a") as file:
            file.write(f"{index} {code}\n")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def smi(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.root / "lib/nvidia-smi"), *words)

    def smi_lines(self, *words: str) -> list[str]:
        done = self.smi(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    def start(self, code: str, index: int = 0) -> subprocess.Popen[str]:
        """Run Python that has `nvml`, the handle `gpu` and `answer(value)`."""
        return subprocess.Popen(
            [sys.executable, "-c", PROLOGUE.format(index=index) + textwrap.dedent(code)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, code: str, index: int = 0) -> list[Any]:
        """What that Python answers, in order."""
        process = self.start(code, index)
        output, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, errors
        return [json.loads(line) for line in output.splitlines()]

    def failure(self, words: Sequence[str] = ("nvmlInit",)) -> int:
        """The code of NVML's error when these functions are called in turn."""
        calls = "\n".join(f"    nvml.{word}" + ("()" if "(" not in word else "") for word in words)
        code = f"import pynvml as nvml\ntry:\n{calls}\nexcept nvml.NVMLError as problem:\n    "
        done = self.run(sys.executable, "-c", code + "print(problem.value)")
        assert done.returncode == 0 and done.stdout, done.stderr or "no error"
        return int(done.stdout)
