"""The simulated nvidia-ctk merges and generates as NVIDIA's own does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from ops.lab.mirror.package import FILES

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)
  MIG 1g.10gb     Device  0: (UUID: MIG-b)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-c)
"""


def ctk(*words: str, folder: Path, code: int = 0) -> str:
    command = [sys.executable, str(FILES / "nvidia_ctk.py"), *words]
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": path})
    assert done.returncode == code, done.stderr
    return done.stdout


def test_configuring_docker_keeps_every_other_key(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text('{"log-driver": "journald", "runtimes": {"kata": {"path": "kata"}}}')
    words = ["runtime", "configure", "--runtime=docker", f"--config={config}", "--cdi.enabled"]
    before = config.read_text()
    shown = json.loads(ctk(*words, "--dry-run", folder=tmp_path))
    assert config.read_text() == before
    ctk(*words, folder=tmp_path)
    written = json.loads(config.read_text())
    assert written == shown
    assert written["log-driver"] == "journald"
    assert set(written["runtimes"]) == {"kata", "nvidia"}
    assert written["features"] == {"cdi": True}
    first = config.read_text()
    ctk(*words, folder=tmp_path)
    assert config.read_text() == first


def test_a_configuration_that_is_no_json_is_left_alone(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text("{,}")
    ctk("runtime", "configure", f"--config={config}", folder=tmp_path, code=1)
    assert config.read_text() == "{,}"


def test_cdi_names_each_gpu_and_mig_instance(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    ctk("cdi", "generate", f"--output={tmp_path}/nvidia.yaml", folder=tmp_path)
    written = yaml.safe_load((tmp_path / "nvidia.yaml").read_text())
    assert written["kind"] == "nvidia.com/gpu"
    devices = {each["name"]: each["containerEdits"] for each in written["devices"]}
    assert set(devices) == {"0", "GPU-a", "0:0", "MIG-b", "1", "GPU-c", "all"}
    nodes = [node["path"] for node in devices["all"]["deviceNodes"]]
    assert nodes == ["/dev/nvidia0", "/dev/nvidia1"]


def test_without_a_driver_no_cdi_file_is_written(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    program.chmod(0o755)
    ctk("cdi", "generate", f"--output={tmp_path}/nvidia.yaml", folder=tmp_path, code=1)
    assert not (tmp_path / "nvidia.yaml").exists()
