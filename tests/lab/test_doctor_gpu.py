"""`ops doctor` on a host with simulated GPUs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from gpu_host import GpuHost, fresh
from stack import Lab

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

TAGS = "nvidia_driver,gpu_exporter"
VERSION = "/proc/driver/nvidia/version"
SOON_SECONDS = 40.0
UNIT = """[Service]
EnvironmentFile=/etc/engine/demo-blue.env
ExecStart=/bin/sh -c 'cat /etc/engine/said; exit 1'
Restart=always
RestartSec=2
"""
NVCC = "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist"


FACT = '{"models": {"demo": {"active": "blue", "revision": "1"}}}'
SETTINGS = """ENGINE_COMMAND=/bin/true
ENGINE_PORT=8100
ENGINE_ARGS="serve /srv/models/demo/1"
"""


class Host(GpuHost):
    """A host that the doctor examines."""

    def gpu(self, *words: str) -> None:
        self.lab_command("gpu", *words)

    def examine(self) -> tuple[int, list[dict[str, Any]]]:
        command = ["ops", "doctor", "-i", str(self.lab.inventory), "--json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=120, env=self.lab.environment)  # fmt: skip
        assert done.stdout, done.stderr
        (host,) = json.loads(done.stdout)["hosts"]
        assert not host["complaints"], host
        return done.returncode, host["findings"]

    def named(self, case: str) -> dict[str, Any]:
        end = time.monotonic() + SOON_SECONDS
        while True:
            found = self.examine()[1]
            mine = [finding for finding in found if finding["case"] == case]
            if mine:
                print(json.dumps(mine, indent=1))
                return mine[0]
            assert time.monotonic() < end, json.dumps(found, indent=1)
            time.sleep(1)

    def well(self) -> bool:
        """Whether the doctor finds nothing critical."""
        end = time.monotonic() + SOON_SECONDS
        while self.examine()[0]:
            assert time.monotonic() < end, json.dumps(self.examine()[1], indent=1)
            time.sleep(1)
        return True


@pytest.fixture(scope="module")
def host(labs: Callable[..., Lab]) -> Host:
    bare = fresh(labs(1, "ubuntu-24.04-facade", "H100:2"))
    run = bare.play(tags=TAGS)
    assert run.status == 0, run.output[-6000:]
    return Host(bare.lab, bare.name)


@pytest.fixture(autouse=True)
def _healed(host: Host) -> None:
    host.gpu("reset", host.name)
    assert host.well()


def test_gpus_that_are_well_have_no_finding(host: Host) -> None:
    found = host.examine()[1]
    assert not [f for f in found if f["case"].startswith(("gpu-", "driver-", "cuda-"))], found


def test_a_gpu_that_is_lost_is_named(host: Host) -> None:
    host.gpu("set", host.name, "1", "state=lost")
    found = host.named("gpu-lost")
    assert (found["subject"], found["severity"]) == ("GPU 1", "critical")
    assert "ops restart host node1" in found["cure"]


def test_an_xid_is_critical_until_the_gpu_asks_for_nothing_any_more(host: Host) -> None:
    host.gpu("xid", host.name, "0", "119")
    host.gpu("set", host.name, "0", "recovery_action=1")
    found = host.named("gpu-xid")
    assert "XID 119: GSP RPC timeout" in found["symptom"]
    assert found["severity"] == "critical"
    assert host.named("gpu-wants-recovery")["symptom"].endswith("Reset")
    host.gpu("reset", host.name)
    assert host.well()
    assert host.named("gpu-xid")["severity"] == "info"


def test_libraries_of_another_version_than_the_module_are_named_with_the_reboot(host: Host) -> None:
    host.sh(f"v=$(cat {VERSION}); cp {VERSION} /run/version.was; "
            f"printf '%s\\n' \"$v\" | sed 's/ 580\\.[0-9.]*/ 575.57.08/' > {VERSION}")  # fmt: skip
    found = host.named("driver-library-mismatch")
    assert "575.57.08" in found["cause"]
    assert found["cure"] == "ops restart host node1"
    host.reboot()
    assert host.well()


def test_memory_that_nobody_holds_has_the_processes_named(host: Host) -> None:
    host.gpu("set", host.name, "0", "process=999999:30000:gone")
    found = host.named("gpu-memory-orphaned")
    assert found["subject"].startswith("GPU 0")
    assert "999999" in found["symptom"]


def test_a_process_of_no_unit_is_told_apart_from_an_engine(host: Host) -> None:
    host.sh("systemd-run -q --unit=engine@qwen-blue.service --collect sleep 600")
    engine = host.sh("systemctl show -p MainPID --value engine@qwen-blue.service")
    stray = host.sh("setsid -f sleep 601 </dev/null >/dev/null 2>&1; pgrep -nf '^sleep 601'")
    try:
        host.gpu("set", host.name, "1", f"process={engine}:9000:vllm")
        host.gpu("set", host.name, "1", f"process={stray}:2000:python")
        found = host.named("gpu-memory-orphaned")
    finally:
        host.sh(f"systemctl stop engine@qwen-blue.service; kill {stray}")
    assert found["symptom"].startswith("2000 MiB")
    assert f"kill {stray}" in found["cure"]
    assert engine not in found["symptom"]


def test_a_hot_gpu_and_one_with_broken_memory_are_named(host: Host) -> None:
    host.gpu("set", host.name, "0", "temperature=93")
    host.gpu("set", host.name, "1", "remapped_rows_failure=yes")
    assert host.named("gpu-hot")["subject"].startswith("GPU 0")
    assert host.named("gpu-row-remap-failed")["subject"].startswith("GPU 1")


def test_a_module_that_is_not_loaded_is_named_and_loaded(host: Host) -> None:
    host.sh("systemctl stop gpu_exporter nvidia-persistenced; modprobe -r nvidia || true")
    try:
        found = host.named("driver-not-loaded")
        assert found["cure"].startswith("modprobe nvidia")
        host.sh("modprobe nvidia")
    finally:
        host.sh("systemctl start nvidia-persistenced gpu_exporter")
    assert host.well()


def test_an_engine_that_finds_no_toolkit_is_told_which(host: Host) -> None:
    host.sh(
        "mkdir -p /etc/engine /srv/models/demo/1; "
        f"cat > /etc/ansible/facts.d/engine.fact <<'END'\n{FACT}\nEND\n"
        f"cat > /etc/engine/demo-blue.env <<'END'\n{SETTINGS}END\n"
        f"cat > /etc/engine/said <<'END'\n{NVCC}\nEND\n"
        f"cat > /etc/systemd/system/engine@.service <<'END'\n{UNIT}END\n"
        "systemctl daemon-reload; systemctl start engine@demo-blue"
    )  # fmt: skip
    try:
        found = host.named("cuda-toolkit-missing")
        assert found["symptom"].endswith("has no nvcc")
        assert "ops provision --tags cuda,engine" in found["cure"]
    finally:
        host.sh("systemctl stop engine@demo-blue; rm -r /etc/systemd/system/engine@.service "
                "/etc/engine /srv/models/demo /etc/ansible/facts.d/engine.fact; "
                "systemctl daemon-reload; systemctl reset-failed 'engine@*' || true")  # fmt: skip
