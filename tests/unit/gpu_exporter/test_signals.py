"""What each signal says of a simulated GPU."""

from __future__ import annotations

import pytest

from ops.gpu_exporter.signals import SIGNALS
from ops.lab.gpu.catalogue import parse_gpus
from tests.unit.gpu_exporter.running import exporter, living
from tests.unit.gpu_simulator.simulated_machine import SimulatedMachine

GIB = 1 << 30
MIB = 1 << 20


def test_readings_are_in_base_units(machine: SimulatedMachine) -> None:
    machine.change(0, "temperature=71", "temperature_memory=80", "utilization_gpu=93")
    machine.change(0, "memory_used_mib=70000", "power_usage_mw=650500", "clock_sm_mhz=1755")
    machine.change(0, "energy_mj=12345", "utilization_decoder=7", "performance_state=2")
    machine.change(0, "pcie_tx_bytes=8000000000", "pcie_replays=3", "persistence_mode=yes")
    with exporter(machine) as running:
        page = running.scrape()
    expected = {
        ("gpu_temperature_celsius", "sensor", "gpu"): 71,
        ("gpu_temperature_celsius", "sensor", "memory"): 80,
        ("gpu_temperature_threshold_celsius", "threshold", "slowdown"): 89,
        ("gpu_temperature_threshold_celsius", "threshold", "shutdown"): 95,
        ("gpu_temperature_threshold_celsius", "threshold", "gpu_max"): 87,
        ("gpu_power_limit_watts", "limit", "enforced"): 700,
        ("gpu_power_limit_watts", "limit", "min"): 200,
        ("gpu_clock_hertz", "clock", "sm"): 1_755_000_000,
        ("gpu_clock_max_hertz", "clock", "sm"): 1_980_000_000,
        ("gpu_engine_utilization_ratio", "engine", "decoder"): 0.07,
    }
    for (name, label, value), number in expected.items():
        assert page(name, gpu="0", **{label: value}) == pytest.approx(number), (name, value)
    single = {
        "gpu_temperature_margin_celsius": 16,
        "gpu_utilization_ratio": 0.93,
        "gpu_memory_used_bytes": 70000 * MIB,
        "gpu_memory_total_bytes": 81559 * MIB,
        "gpu_power_watts": 650.5,
        "gpu_energy_joules_total": 12.345,
        "gpu_performance_state": 2,
        "gpu_pcie_transmitted_bytes_total": 8e9,
        "gpu_pcie_replays_total": 3,
        "gpu_pcie_link_generation": 5,
        "gpu_persistence_mode": 1,
        "gpu_recovery_action": 0,
    }
    for name, number in single.items():
        assert page(name, gpu="0") == pytest.approx(number), name
    assert page("gpu_temperature_celsius", gpu="1", sensor="gpu") == 34


def test_what_a_gpu_does_not_have_is_absent_and_not_zero(machine: SimulatedMachine) -> None:
    machine.describe(parse_gpus("RTX4090:1"))
    with exporter(machine) as running:
        page = running.scrape()
    assert page("gpu_up") == 1
    assert page.values("gpu_fan_speed_ratio") == [0.3, 0.3]
    for name in (
        "gpu_ecc_enabled",
        "gpu_ecc_errors_total",
        "gpu_remapped_rows",
        "gpu_retired_pages",
        "gpu_nvlink_up",
        "gpu_nvlink_lost_links",
        "gpu_fabric_state",
        "gpu_mig_mode",
        "gpu_signal_failed",
    ):
        assert page.values(name) == [], name
    assert page.values("gpu_temperature_celsius", sensor="memory") == []


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        ("0x1", {"idle"}),
        ("0x40", {"hw_thermal"}),
        ("0x88", {"hw_slowdown", "hw_power_brake"}),
        ("0x24", {"sw_power_cap", "sw_thermal"}),
    ],
)
def test_each_reason_of_throttling_has_its_name(
    machine: SimulatedMachine, bits: str, reasons: set[str]
) -> None:
    machine.change(0, f"clocks_event_reasons={bits}", "violation_thermal_ns=2500000000")
    with exporter(machine) as running:
        page = running.scrape()
    rows = page.samples["gpu_throttle_reason"]
    assert {row["reason"] for row, value in rows if row["gpu"] == "0" and value} == reasons
    assert page("gpu_throttled_seconds_total", gpu="0", cause="thermal") == 2.5


def test_memory_errors_are_told_by_kind_and_scope(machine: SimulatedMachine) -> None:
    machine.change(0, "ecc_corrected=5", "ecc_uncorrected=1", "ecc_uncorrected_aggregate=4")
    machine.change(0, "ecc_corrected_aggregate=6")
    machine.change(0, "remapped_rows_uncorrected=2", "remapped_rows_pending=yes")
    machine.change(0, "remapped_rows_failure=yes", "remap_banks_low=1", "recovery_action=1")
    machine.change(0, "ecc_sram_threshold_exceeded=yes")
    with exporter(machine) as running:
        page = running.scrape()
    errors = {(row["error"], row["scope"]): v for row, v in page.samples["gpu_ecc_errors_total"]
              if row["gpu"] == "0"}  # fmt: skip
    assert errors == {
        ("corrected", "volatile"): 5,
        ("uncorrected", "volatile"): 1,
        ("corrected", "aggregate"): 6,
        ("uncorrected", "aggregate"): 4,
    }
    assert page("gpu_remapped_rows", gpu="0", cause="uncorrected") == 2
    assert page("gpu_row_remap_pending", gpu="0") == 1
    assert page("gpu_row_remap_failed", gpu="0") == 1
    assert page("gpu_row_remap_banks", gpu="0", spare="low") == 1
    assert page("gpu_recovery_action", gpu="0") == 1
    assert page("gpu_ecc_sram_threshold_exceeded", gpu="0") == 1
    assert page("gpu_row_remap_failed", gpu="1") == 0


def test_older_gpus_retire_pages(machine: SimulatedMachine) -> None:
    machine.describe(parse_gpus("T4:1"))
    machine.change(0, "retired_pages_uncorrected=3", "retired_pages_pending=yes")
    with exporter(machine) as running:
        page = running.scrape()
    assert page("gpu_retired_pages", cause="uncorrected") == 3
    assert page("gpu_retired_pages_pending") == 1
    assert page.values("gpu_remapped_rows") == []


def test_a_link_that_was_up_and_is_not_is_lost_even_after_a_restart(
    machine: SimulatedMachine,
) -> None:
    keep = ("--state", str(machine.root))
    with exporter(machine, *keep) as running:
        page = running.scrape()
        assert page("gpu_nvlink_lost_links", gpu="0") == 0
        assert page.values("gpu_nvlink_up", gpu="0") == [1.0] * 18
        machine.change(0, "nvlink_down=0x5", "nvlink_replay_errors=7")
        page = running.scrape()
        assert page("gpu_nvlink_up", gpu="0", link="2") == 0
        assert page("gpu_nvlink_errors_total", gpu="0", error="replay") == 7
        assert page("gpu_nvlink_lost_links", gpu="0") == 2
    with exporter(machine, *keep) as running:
        assert running.scrape()("gpu_nvlink_lost_links", gpu="0") == 2


def test_links_of_a_board_without_a_bridge_are_down_and_not_lost(
    machine: SimulatedMachine,
) -> None:
    machine.describe(parse_gpus("H100-PCIe:1"))
    with exporter(machine) as running:
        page = running.scrape()
    assert page.values("gpu_nvlink_up") == [0.0] * 12
    assert page("gpu_nvlink_lost_links") == 0


def test_mig_devices_have_names_and_memory(machine: SimulatedMachine) -> None:
    machine.smi_lines("-i", "0", "-mig", "1")
    machine.smi_lines("mig", "-i", "0", "-cgi", "3g.40gb,1g.10gb", "-C")
    with exporter(machine) as running:
        page = running.scrape()
    assert (page("gpu_mig_mode", gpu="0"), page("gpu_mig_mode", gpu="1")) == (1, 0)
    infos = [row for row, _ in page.samples["gpu_mig_info"]]
    assert sorted(row["profile"] for row in infos) == ["1g.10gb", "3g.40gb"]
    assert all(row["mig_uuid"].startswith("MIG-") and row["gpu"] == "0" for row in infos)
    (large,) = [row for row in infos if row["profile"] == "3g.40gb"]
    total = page("gpu_mig_memory_total_bytes", gpu_instance=large["gpu_instance"])
    assert 35 * GIB < total < 45 * GIB
    assert page.values("gpu_utilization_ratio", gpu="0") == []  # each instance has its own


def test_memory_has_an_owner_or_is_orphaned_with_a_name(machine: SimulatedMachine) -> None:
    living(machine, 70, "VLLM::EngineCore")
    living(machine, 71)
    living(machine, 72, killed=True)
    machine.change(0, "memory_used_mib=20000")
    for process in ("70:8192:vllm", "71:2048:python", "72:1024:vllm", "73:512:gone"):
        machine.change(0, f"process={process}")
    units = {
        70: "engine@qwen-3-blue.service",
        71: "session-4.scope",
        72: "engine@qwen-3-green.service",
    }
    with exporter(machine, units=units) as running:
        page = running.scrape()
    assert page.labels("gpu_process_memory_bytes", pid="70") | {"uuid": ""} == {
        "gpu": "0",
        "uuid": "",
        "pid": "70",
        "process": "VLLM::EngineCore",
        "kind": "compute",
        "unit": "engine@qwen-3-blue.service",
        "model": "qwen-3",
        "slot": "blue",
        "known": "true",
        "gpu_instance": "",
    }
    assert page("gpu_process_memory_bytes", pid="70") == 8192 * MIB
    assert page.labels("gpu_process_memory_bytes", pid="71")["unit"] == "session-4.scope"
    orphans = {row["pid"] for row, _ in page.samples["gpu_process_memory_bytes"]
               if row["known"] == "false"}  # fmt: skip
    assert orphans == {"71", "72", "73"}
    causes = {row["cause"]: value / MIB for row, value in page.samples["gpu_orphaned_memory_bytes"]
              if row["gpu"] == "0"}  # fmt: skip
    assert causes == {
        "unknown_unit": 2048,
        "dead_process": 1024 + 512,
        "no_process": 20000 - 8192 - 2048 - 1024 - 512,
    }


def test_units_that_may_hold_memory_are_the_persons_choice(machine: SimulatedMachine) -> None:
    living(machine, 71)
    machine.change(0, "process=71:2048:python")
    known = ("--known-unit", "notebook-*.service")
    with exporter(machine, *known, units={71: "notebook-1.service"}) as running:
        page = running.scrape()
    assert page.labels("gpu_process_memory_bytes")["known"] == "true"
    assert page("gpu_orphaned_memory_bytes", gpu="0", cause="unknown_unit") == 0


def test_a_process_that_draws_and_computes_counts_once(machine: SimulatedMachine) -> None:
    living(machine, 71)
    machine.change(0, "process=71:2048:python:C")
    described = machine.described()
    text = described.render().replace("71:2048:python:C", "71:2048:python:C, 71:2048:python:G")
    machine.description.write_text(text)
    with exporter(machine) as running:
        page = running.scrape()
    assert page.values("gpu_process_memory_bytes", pid="71") == [2048 * MIB]


def test_every_signal_declares_what_it_gives() -> None:
    names = [metric.name for signal in SIGNALS for metric in signal.metrics]
    assert len(names) == len(set(names))
    assert len({signal.name for signal in SIGNALS}) == len(SIGNALS)
