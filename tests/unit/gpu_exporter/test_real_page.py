"""The simulated H100 beside the page that a real one gave (`make test-gpu`, 2026-11-26)."""

from __future__ import annotations

from pathlib import Path

from ops.lab.gpu.catalogue import parse_gpus
from tests.unit.gpu_exporter.running import exporter
from tests.unit.gpu_exporter.scraped import Scrape, parse
from tests.unit.gpu_simulator.simulated_machine import SimulatedMachine

REAL = parse(Path(__file__).with_name("pages").joinpath("h100.txt").read_text(encoding="utf-8"))
FIXED = (
    "gpu_memory_total_bytes",
    "gpu_bar1_total_bytes",
    "gpu_temperature_threshold_celsius",
    "gpu_clock_max_hertz",
    "gpu_power_limit_watts",
    "gpu_row_remap_banks",
    "gpu_pcie_link_generation_max",
    "gpu_pcie_link_width_max",
    "gpu_ecc_enabled",
)
"""What is the product's, whatever it does."""
WITHOUT_NVLINK = {"gpu_nvlink_up", "gpu_nvlink_lost_links", "gpu_nvlink_errors_total"}
"""The real one stood alone in its machine, passed through without its links."""


def series(page: Scrape, *names: str) -> dict[tuple[str, str], float]:
    return {
        (name, str(sorted((k, v) for k, v in labels.items() if k not in ("gpu", "uuid")))): value
        for name in names
        for labels, value in page.samples.get(name, [])
    }


def test_the_simulated_h100_reads_as_the_real_one(machine: SimulatedMachine) -> None:
    machine.describe(parse_gpus("H100:1"))
    with exporter(machine) as running:
        page = running.scrape()
    ours, real = (
        {name for name in each.samples if name.startswith("gpu_")} for each in (page, REAL)
    )
    assert real - ours == {"gpu_fabric_state"}, "0, not supported, was told until then"
    assert ours - real - WITHOUT_NVLINK == set()
    assert series(page, *FIXED) == series(REAL, *FIXED)
    xids = "gpu_xid_errors_total"
    assert series(page, xids).keys() == series(REAL, xids).keys()
