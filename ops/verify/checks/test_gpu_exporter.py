"""What the GPU exporter of a host promises."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Host
from ops.verify.ports import gpu_exporter_port
from ops.verify.probes import ask, assert_listens_only_at, assert_unit_runs, http

GROUPS = ("gpu",)
UNIT = "gpu_exporter.service"
NVIDIA = "grep -lsx 0x10de /sys/bus/pci/devices/*/vendor"
MOST_BYTES = 5_000_000


@pytest.fixture(scope="module", autouse=True)
def _gpus(host: Connection) -> None:
    """Pass a host over that never had an NVIDIA GPU, as its role does."""
    if not host.file(f"/etc/systemd/system/{UNIT}").exists and host.run(NVIDIA).rc != 0:
        pytest.skip("no NVIDIA GPU is on the bus of this host")


@pytest.fixture
def port(target: Host) -> int:
    """Where the page is."""
    return gpu_exporter_port(target)


@pytest.fixture
def page(host: Connection, address: str, port: int) -> dict[str, list[float]]:
    """The values of the host's metrics, and of each GPU's."""
    status, text = http(host, f"http://{address}:{port}/metrics", most_bytes=MOST_BYTES)
    assert status == 200, f"no page at {address}:{port}: {text}"
    found: dict[str, list[float]] = {}
    for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
        found.setdefault(name, []).append(float(value))
    return found


def test_it_runs_and_comes_back_after_a_reboot(host: Connection) -> None:
    assert_unit_runs(host, UNIT)


def test_it_listens_on_the_private_address_only(host: Connection, address: str, port: int) -> None:
    assert_listens_only_at(host, port, {address})


def test_it_does_not_run_as_root(host: Connection) -> None:
    pid = ask(host, "systemctl show -p MainPID --value %s", UNIT)
    assert ask(host, "stat -c %%U /proc/%s", pid) != "root"


def test_the_driver_answers_it(page: dict[str, list[float]]) -> None:
    assert page["gpu_driver_up"] == [1], (
        "NVML does not open\ncure: ops gpu-exporter --once on the host names the reason"
    )


def test_every_gpu_that_should_be_there_answers(page: dict[str, list[float]]) -> None:
    expected, present = page["gpu_expected"][0], page["gpu_present"][0]
    assert present >= expected, f"{present:.0f} of {expected:.0f} GPUs answer"


def test_it_listens_for_xids_of_every_gpu(page: dict[str, list[float]]) -> None:
    watched = page.get("gpu_xid_watch_up", [])
    assert watched == [1.0] * int(page["gpu_present"][0])
