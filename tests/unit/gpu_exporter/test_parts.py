"""Parts of the exporter without a driver: owners, a driver that never comes back, the catalogue."""

from __future__ import annotations

import ctypes
import re
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import pynvml as nvml
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from ops.gpu_exporter import VERSION, gpu, owners, xid
from ops.gpu_exporter.device import Device
from ops.gpu_exporter.metric import Sample
from ops.gpu_exporter.owners import Owners, is_dead, systemd_unit
from ops.gpu_exporter.page import HOST_METRICS, METRICS, Page, Settings
from ops.gpu_exporter.signals import Signal, temperature
from ops.places import ROOT
from tests.unit.gpu_exporter.running import exporter, parse
from tests.unit.gpu_simulator.simulated_machine import SimulatedMachine

ONE = (Sample(METRICS[0], 1.0),)
EXPOSED = {metric.exposed_name: metric for metric in (*HOST_METRICS, *METRICS)}


def test_nvml_that_never_opens_leaves_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(nvml, "nvmlInit", stuck.wait)
    page = Page(Settings())
    page.driver.start()
    registry = CollectorRegistry()
    registry.register(page)
    said = parse(generate_latest(registry).decode())
    assert said("gpu_driver_up") == 0
    assert said("gpu_driver_error", error="no_answer") == 1


@pytest.mark.parametrize(
    ("unit", "model", "slot"),
    [
        ("engine@demo-blue.service", "demo", "blue"),
        ("engine@qwen3-32b-green.service", "qwen3-32b", "green"),
        ("engine@blue.service", "", ""),
        ("nvidia-persistenced.service", "", ""),
    ],
)
def test_a_slot_is_read_from_its_unit(
    machine: SimulatedMachine, unit: str, model: str, slot: str
) -> None:
    owner = Owners(procfs=machine.root / "proc", unit_of=lambda _: unit).of(1)
    assert (owner.unit, owner.model, owner.slot, owner.cause) == (unit, model, slot, "")


def test_a_process_that_sigkill_cannot_end_is_dead() -> None:
    status = "Name:\tpython\nState:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0\n"
    assert is_dead(status)
    assert not is_dead(status.replace("0100", "0000"))
    assert is_dead("Name:\tpython\nState:\tZ (zombie)\n")


def test_hidden_processes_are_not_called_dead(tmp_path: Path) -> None:
    assert Owners(procfs=tmp_path, unit_of=lambda _: "").of(7).cause == ""
    (tmp_path / "1").mkdir()
    assert Owners(procfs=tmp_path, unit_of=lambda _: "").of(7).cause == "dead_process"


def test_a_process_of_no_unit_has_none() -> None:
    assert systemd_unit(2**22 + 1) == ""


def test_a_unit_is_what_systemd_says_and_its_memory_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = [ctypes.create_string_buffer(b"engine@demo-blue.service")]
    freed = []

    class Libsystemd:
        @staticmethod
        def sd_pid_get_unit(_: object, place: Any) -> int:
            place._obj.value = ctypes.addressof(kept[0])
            return 0

    class Libc:
        free = staticmethod(lambda place: freed.append(place.value))

    monkeypatch.setattr(owners, "_libraries", lambda: (Libsystemd, Libc))
    assert systemd_unit(7) == "engine@demo-blue.service"
    assert freed == [ctypes.addressof(kept[0])]


def test_thresholds_that_a_device_tells_as_margins_become_degrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: dict[Any, int | None] = {
        nvml.nvmlDeviceGetTemperature: 60,
        nvml.nvmlDeviceGetMarginTemperature: 27,
    }
    monkeypatch.setattr(Device, "ask", lambda _, function, *__: answers.get(function))
    device = Device(None, 0, {nvml.NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT: -8})
    found = list(temperature.read(device, Owners()))
    shown = {sample.labels: sample.value for sample in found if sample.metric.labels}
    assert shown == {("gpu",): 60, ("shutdown",): 95}


def test_xids_have_the_actions_that_alerts_act_on() -> None:
    codes: dict[str, set[int]] = {}
    for code, kind in xid.KINDS.items():
        codes.setdefault(kind.action, set()).add(code)
    assert codes["reset"] == {46, 48, 62, 64, 74, 95, 109, 110, 119, 120, 136, 140, 143, 158}
    assert codes["application"] == {13, 31, 43, 45, 63}
    assert (codes["reboot"], codes["restart"]) == ({79}, {94})


def test_a_signal_that_breaks_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> Any:
        raise TypeError("a driver of tomorrow")

    signals = (Signal("broken", (), breaks), Signal("other", (), lambda *_: iter(ONE)))
    monkeypatch.setattr(gpu, "SIGNALS", signals)
    monkeypatch.setattr(gpu.Gpu, "_open", lambda _: Device(None, 0))
    monkeypatch.setattr(Device, "read_fields", lambda *_: {})
    reader = gpu.Gpu(0, Owners())
    reader.start()
    reader.request()
    assert reader.wait(time.monotonic() + 5)
    assert reader.latest
    assert (reader.latest.condition, reader.latest.failed) == ("ok", ("broken",))
    assert reader.latest.samples == ONE
    assert "a driver of tomorrow" in caplog.text


def test_a_gpu_that_cannot_even_be_opened_is_no_hung_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = gpu.Gpu(0, Owners())
    monkeypatch.setattr(reader, "_open", None)
    reader.start()
    reader.request()
    assert reader.wait(time.monotonic() + 5)
    assert reader.latest and reader.latest.condition == "error"


def test_a_gpu_without_xid_events_is_not_called_unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(nvml, "nvmlEventSetCreate", lambda: None)
    monkeypatch.setattr(nvml, "nvmlDeviceRegisterEvents", refuse)
    watch = xid.Watch(None, "GPU 0", print)
    assert watch.up is False
    watch.start().join(5)
    assert watch.up is None


def test_names_keep_to_prometheus_conventions() -> None:
    for name, metric in EXPOSED.items():
        assert re.fullmatch(r"gpu_[a-z0-9_]+", name), name
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert not re.search(r"_(mib|mhz|mw|ms|percent|kbps)(_|$)", name), name
        assert metric.help.endswith("."), name


def test_the_document_tells_each_metric_with_its_labels_and_no_other() -> None:
    text = (ROOT / "docs/gpu-exporter.md").read_text()
    rows = re.findall(r"^\| `(gpu_\w+)(?:\{([\w, ]+)\})?`", text, re.MULTILINE)
    told = {name: set(filter(None, labels.replace(" ", "").split(","))) for name, labels in rows}
    assert told == {name: set(metric.labels) for name, metric in EXPOSED.items()}


def test_the_page_has_what_the_catalogue_says_and_nothing_else(machine: SimulatedMachine) -> None:
    with exporter(machine) as running:
        page = running.scrape()
    ours = {name for name in page.samples if name.startswith("gpu_")}
    assert ours <= set(EXPOSED)
    for name in ours:
        of_gpu = {"gpu", "uuid"} if EXPOSED[name] in METRICS else set()
        assert all(set(row) == {*EXPOSED[name].labels, *of_gpu} for row, _ in page.samples[name])
    assert page.labels("gpu_exporter_info") == {"version": VERSION}
    assert page("process_resident_memory_bytes") > 1 << 20
    assert "DCGM_FI" not in page.text


def test_dcgm_exporters_names_are_there_by_choice_with_its_units(
    machine: SimulatedMachine,
) -> None:
    machine.change(0, "temperature=71", "memory_used_mib=70000", "utilization_gpu=93")
    machine.change(0, "energy_mj=12345", "clock_sm_mhz=1755", "ecc_uncorrected=2")
    with exporter(machine, "--dcgm") as running:
        running.until(lambda page: page.values("gpu_xid_watch_up") == [1.0, 1.0])
        machine.report_xid(0, 48)
        page = running.until(lambda page: page("DCGM_FI_DEV_XID_ERRORS", gpu="0") == 48)
    for name, value in {
        "GPU_TEMP": 71,
        "FB_USED": 70000,
        "GPU_UTIL": 93,
        "TOTAL_ENERGY_CONSUMPTION": 12345,
        "SM_CLOCK": 1755,
        "ECC_DBE_VOL_TOTAL": 2,
        "POWER_USAGE": 70,
    }.items():
        assert page(f"DCGM_FI_DEV_{name}", gpu="0") == pytest.approx(value), name
    labels = page.labels("DCGM_FI_DEV_GPU_TEMP", gpu="0")
    assert (labels["device"], labels["modelName"]) == ("nvidia0", "NVIDIA H100 80GB HBM3")
    assert labels["UUID"].startswith("GPU-")
    assert page("gpu_temperature_celsius", gpu="0", sensor="gpu") == 71


def test_the_wheel_needs_nothing_of_the_rest_of_ops() -> None:
    for path in (ROOT / "ops/gpu_exporter").rglob("*.py"):
        named = re.findall(r"^\s*(?:from|import) (ops[.\w]*)", path.read_text(), re.MULTILINE)
        assert all(name.startswith("ops.gpu_exporter") for name in named), path


def test_the_wheel_has_every_package_and_the_control_machines_pins() -> None:
    folder = ROOT / "ops/gpu_exporter"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in folder.rglob("*.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == packages
    assert project["project"]["version"] == VERSION
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["project"]["dependencies"]) <= set(root["project"]["dependencies"])
