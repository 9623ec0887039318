"""Alerts of GPUs by faults of the simulated ones: told once by webhook and mail, and resolved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from gpu_host import GpuHost, fresh
from stack import Lab
from watched import Watched, assert_told_once_and_resolved, receivers, write

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

TAGS = "nvidia_driver,gpu_exporter,watch"
WITHIN = 90.0


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(1, "ubuntu-24.04-facade", "H100:2")


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Iterator[Watched]:
    with receivers(lab) as made:
        yield made


@pytest.fixture(scope="module")
def host(lab: Lab, watched: Watched) -> Iterator[GpuHost]:
    made = fresh(lab)
    path = lab.inventory / "group_vars/gpu.yml"
    write(path, {"gpu_exporter_expected": 2})
    try:
        run = made.play(tags=TAGS)
        assert run.status == 0, run.output[-6000:]
        yield made
    finally:
        path.unlink()


@pytest.fixture(autouse=True)
def _healed(host: GpuHost) -> None:
    host.lab_command("gpu", "reset", host.name)


@contextlib.contextmanager
def gpu(host: GpuHost, *words: str) -> Iterator[None]:
    """Let a GPU have a fault until the block is left."""
    host.lab_command("gpu", *words[:1], host.name, *words[1:])
    try:
        yield
    finally:
        host.lab_command("gpu", "reset", host.name)


FAULTS = {
    "GpuHot": ("set", "0", "temperature=95"),
    "GpuXidReset": ("xid", "1", "48"),
    "GpuFellOff": ("set", "1", "state=lost"),
    "GpuHung": ("set", "0", "state=hang"),
    "GpuOrphanedMemory": ("set", "0", "process=999999:4000:gone"),
    "GpuEccUncorrected": ("set", "1", "ecc_uncorrected=3"),
    "GpuRowRemapPending": ("set", "1", "remapped_rows_pending=1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_told_once_and_resolved(name: str, host: GpuHost, watched: Watched) -> None:
    assert_told_once_and_resolved(
        watched, name, gpu(host, *FAULTS[name]), within=WITHIN, resolved=180
    )


def test_what_follows_from_a_lost_gpu_is_held_back(host: GpuHost, watched: Watched) -> None:
    told = {alert["labels"]["alertname"] for p in watched.hook.posts for alert in p["alerts"]}
    assert "GpuMissing" not in told
