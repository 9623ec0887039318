"""GPUs and drivers that fail: the page tells it, in time, and forgets nobody."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ops.lab.gpu.catalogue import parse_gpus
from tests.unit.gpu_exporter.running import Exporter, exporter, parse
from tests.unit.gpu_simulator.simulated_machine import VERSION, SimulatedMachine

HOT = ("temperature=93", "clocks_event_reasons=0x40")


def watched(running: Exporter) -> None:
    running.until(lambda page: page.values("gpu_xid_watch_up") == [1.0, 1.0])


def test_xids_are_counted_as_events_from_a_zero_that_was_there_before(
    machine: SimulatedMachine,
) -> None:
    with exporter(machine) as running:
        watched(running)
        assert running.scrape()("gpu_xid_errors_total", gpu="0", xid="48") == 0
        for _ in range(3):
            machine.report_xid(0, 48)
        machine.report_xid(1, 999)
        page = running.until(lambda page: bool(page.values("gpu_xid_errors_total", xid="999")))
        running.until(lambda page: page("gpu_xid_errors_total", gpu="0", xid="48") == 3)
    assert page.labels("gpu_xid_errors_total", gpu="0", xid="48")["class"] == "reset"
    assert page.labels("gpu_xid_errors_total", xid="999")["class"] == "other"
    assert page.values("gpu_xid_errors_total", gpu="1", xid="48") == [0]
    assert time.time() - page("gpu_xid_last_timestamp_seconds", gpu="1", xid="999") < 30
    assert page.values("gpu_xid_last_timestamp_seconds", gpu="1", xid="48") == []


ACTIONS = [("79", "reboot"), ("94", "restart"), ("13", "application")]


@pytest.mark.parametrize(("xid", "action"), ACTIONS)
def test_an_xid_tells_what_gets_the_gpu_well(
    machine: SimulatedMachine, xid: str, action: str
) -> None:
    with exporter(machine) as running:
        page = running.scrape()
    assert page.labels("gpu_xid_errors_total", gpu="0", xid=xid)["class"] == action


def test_a_lost_gpu_stays_on_the_page_and_its_neighbour_is_well(
    machine: SimulatedMachine,
) -> None:
    uuid = machine.described().gpus[0].texts["uuid"]
    with exporter(machine) as running:
        watched(running)
        machine.report_xid(0, 79)
        machine.change(0, "state=lost")
        page = running.until(lambda page: page("gpu_xid_errors_total", gpu="0", xid="79") == 1)
        assert (page.condition("0"), page.condition("1")) == ("lost", "ok")
        assert (page("gpu_expected"), page("gpu_present")) == (2, 1)
        assert page.labels("gpu_info", gpu="0")["uuid"] == uuid
        assert page("gpu_up", gpu="0") == 0
        assert page.values("gpu_temperature_celsius", gpu="0") == []
        assert page("gpu_temperature_celsius", gpu="1", sensor="gpu") == 34
        machine.change(0, "state=ok")
        assert running.scrape().condition("0") == "ok"
        machine.report_xid(0, 31)
        running.until(lambda page: page("gpu_xid_errors_total", gpu="0", xid="31") == 1)


def test_a_driver_that_hangs_does_not_hang_the_scrape(machine: SimulatedMachine) -> None:
    machine.change(0, *HOT)
    with exporter(machine, "--deadline", "0.5", "--keep", "2") as running:
        running.scrape()
        machine.change(0, "state=hang")
        page = running.scrape()
        assert 0.5 <= page.seconds < 1.5
        assert (page.condition("0"), page.condition("1")) == ("hung", "ok")
        assert (page("gpu_stale", gpu="0"), page("gpu_stale", gpu="1")) == (1, 0)
        # What was last read is shown with the mark, and not for ever.
        assert page("gpu_temperature_celsius", gpu="0", sensor="gpu") == 93
        assert running.scrape().seconds < 0.4, "an overdue reading is not waited for again"
        page = running.until(lambda page: not page.values("gpu_temperature_celsius", gpu="0"))
        assert page("gpu_reading_age_seconds", gpu="0") >= 2
        assert page("gpu_reading_timeouts_total", gpu="0") >= 2
        assert page("gpu_temperature_celsius", gpu="1", sensor="gpu") == 34
        machine.change(0, "state=ok", "temperature=50")
        page = running.until(lambda page: page.condition("0") == "ok")
        assert page("gpu_temperature_celsius", gpu="0", sensor="gpu") == 50
        assert page("gpu_stale", gpu="0") == 0


def test_a_gpu_that_hangs_from_the_start_has_the_name_that_it_had(
    machine: SimulatedMachine,
) -> None:
    keep = ("--state", str(machine.root), "--deadline", "0.3")
    with exporter(machine, *keep) as running:
        running.scrape()
    machine.change(1, "state=hang")
    with exporter(machine, *keep) as running:
        page = running.scrape()
    assert page.condition("1") == "hung"
    assert page.labels("gpu_info", gpu="1")["uuid"] == machine.described().gpus[1].texts["uuid"]
    assert (page("gpu_expected"), page("gpu_present")) == (2, 1)


def test_a_gpu_that_is_gone_after_a_reboot_is_missing_and_not_forgotten(
    machine: SimulatedMachine,
) -> None:
    keep = ("--state", str(machine.root))
    whole = machine.described()
    with exporter(machine, *keep) as running:
        running.scrape()
    machine.describe(parse_gpus("H100:1"))
    with exporter(machine, *keep) as running:
        page = running.scrape()
    assert page("gpu_driver_up") == 1
    assert (page("gpu_expected"), page("gpu_present")) == (2, 1)
    assert page.condition("1") == "missing"
    assert page.labels("gpu_info", gpu="1")["uuid"] == whole.gpus[1].texts["uuid"]
    machine.describe(whole)
    with exporter(machine, *keep) as running:
        page = running.scrape()
    assert (page.condition("1"), page("gpu_present")) == ("ok", 2)


def test_another_gpu_in_the_same_place_is_a_replacement(machine: SimulatedMachine) -> None:
    keep = ("--state", str(machine.root))
    with exporter(machine, *keep) as running:
        running.scrape()
    machine.describe(parse_gpus("H100:2", host="the board that came instead"))
    with exporter(machine, *keep) as running:
        page = running.scrape()
    assert (page("gpu_expected"), page("gpu_present")) == (2, 2)
    assert len(page.samples["gpu_info"]) == 2


def test_the_inventory_expects_gpus_that_were_never_seen(machine: SimulatedMachine) -> None:
    with exporter(machine, "--expected", "4") as running:
        page = running.scrape()
    assert (page("gpu_expected"), page("gpu_present")) == (4, 2)


def test_without_a_driver_the_page_says_so_and_the_process_makes_way_once_it_loads(
    machine: SimulatedMachine,
) -> None:
    keep = ("--state", str(machine.root))
    with exporter(machine, *keep) as running:
        running.scrape()
    machine.unload()
    with exporter(machine, *keep) as running:
        page = running.scrape()
        assert page("gpu_driver_up") == 0
        assert page("gpu_driver_error", error="driver_not_loaded") == 1
        assert (page("gpu_expected"), page("gpu_present")) == (2, 0)
        assert [page.condition(gpu) for gpu in "01"] == ["missing", "missing"]
        machine.load()
        assert running.ended() == 0
    with exporter(machine, *keep) as running:
        assert running.scrape()("gpu_present") == 2


def test_a_library_of_another_version_than_the_module_has_a_name(
    machine: SimulatedMachine,
) -> None:
    machine.load("595.91.07")
    with exporter(machine) as running:
        page = running.scrape()
        assert page("gpu_driver_up") == 0
        assert page("gpu_driver_error", error="version_mismatch") == 1
        assert page.labels("gpu_driver_info")["module_version"] == "595.91.07"
        (machine.root / "lib/libnvidia-ml.so.1").unlink()
        machine.install("595.91.07")
        assert running.ended() == 0


def test_a_library_replaced_under_a_running_exporter_is_foretold(
    machine: SimulatedMachine,
) -> None:
    with exporter(machine) as running:
        assert running.scrape()("gpu_driver_library_replaced") == 0
        machine.install("595.91.07")
        page = running.scrape()
        assert page("gpu_driver_library_replaced") == 1
        assert (page("gpu_driver_up"), page("gpu_present")) == (1, 2)
        assert page.labels("gpu_driver_info")["driver_version"] == VERSION


def test_once_prints_the_page_and_says_by_its_status_whether_the_driver_opens(
    machine: SimulatedMachine,
) -> None:
    words = ("ops", "gpu-exporter", "--once")
    done = machine.run(*words)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout)("gpu_present") == 2
    machine.unload()
    done = machine.run(*words)
    assert done.returncode == 1
    assert parse(done.stdout)("gpu_driver_error", error="driver_not_loaded") == 1


def test_a_state_that_is_of_no_use_is_written_anew(machine: SimulatedMachine) -> None:
    file = Path(machine.root / "gpus.json")
    file.write_text("{half")
    with exporter(machine, "--state", str(machine.root)) as running:
        assert running.scrape()("gpu_expected") == 2
    assert machine.described().gpus[0].texts["uuid"] in file.read_text()
