"""nvidia-smi, nvitop and gpustat over the simulated library."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from ops.lab.gpu.catalogue import parse_gpus
from ops.live.look_program import Gpus
from tests.unit.gpu_simulator.simulated_machine import VERSION, SimulatedMachine


def test_the_table_has_nvidias_layout_and_says_that_it_is_simulated(
    machine: SimulatedMachine,
) -> None:
    machine.change(0, "temperature=91", "process=4000001:60000:python", "power_usage_mw=650000")
    lines = machine.smi_lines()
    assert {len(line) for line in lines if line[:1] in ("|", "+")} == {91}
    title = f"NVIDIA-SMI {VERSION}             Driver Version: {VERSION}     CUDA Version: 13.0"
    assert title in lines[2]
    name = next(number for number, line in enumerate(lines) if "|   0  NVIDIA H100" in line)
    assert [cell.split() for cell in lines[name + 1].strip("|").split("|")] == [
        ["N/A", "91C", "P0", "650W", "/", "700W"],
        ["60000MiB", "/", "81559MiB"],
        ["0%", "Default"],
    ]
    assert any("4000001" in line and "python" in line and "60000MiB" in line for line in lines)
    assert lines[-1] == "Simulated GPU (rackhand lab)"


def test_the_list_names_gpus_with_their_uuids(machine: SimulatedMachine) -> None:
    texts = machine.described().gpus[1].texts
    assert machine.smi_lines("-L", "-i", "1") == [
        f"GPU 1: NVIDIA H100 80GB HBM3 (UUID: {texts['uuid']})"
    ]
    assert machine.smi_lines("-L", "-i", texts["uuid"]) == machine.smi_lines("-L", "-i", "1")


def test_queries_answer_as_comma_separated_values(machine: SimulatedMachine) -> None:
    fields = "--query-gpu=index,memory.total,fan.speed,power.draw,clocks_throttle_reasons.gpu_idle"
    assert machine.smi_lines(fields, "--format=csv", "-i", "0") == [
        "index, memory.total [MiB], fan.speed [%], power.draw [W], clocks_event_reasons.gpu_idle",
        "0, 81559 MiB, [N/A], 70.00 W, Active",
    ]
    assert machine.smi_lines("--query-gpu=memory.total", "--format=csv,noheader,nounits") == [
        "81559",
        "81559",
    ]


def test_a_query_for_processes_names_them(machine: SimulatedMachine) -> None:
    machine.change(1, "process=4000001:60000:python")
    assert machine.smi_lines("--query-compute-apps=pid,name,used_memory", "--format=csv") == [
        "pid, process_name, used_gpu_memory [MiB]",
        "4000001, python, 60000 MiB",
    ]


def test_an_unknown_field_is_refused(machine: SimulatedMachine) -> None:
    done = machine.smi("--query-gpu=colour", "--format=csv")
    assert (done.returncode, done.stdout.strip()) == (
        2,
        'Field "colour" is not a valid field to query.',
    )


def test_the_report_shows_the_sections_that_are_asked_for(machine: SimulatedMachine) -> None:
    machine.change(0, "ecc_uncorrected=2", "temperature=88")
    report = "\n".join(machine.smi_lines("-q", "-d", "TEMPERATURE,ECC", "-i", "0"))
    assert "GPU Current Temp                          : 88 C" in report
    assert "DRAM Uncorrectable                    : 2" in report
    assert "Power Limit" not in report
    assert "Default Power Limit" in "\n".join(machine.smi_lines("-q"))


def test_a_mismatch_ends_with_nvidias_words_and_code(machine: SimulatedMachine) -> None:
    machine.load("595.91.07")
    done = machine.smi()
    assert done.returncode == 18
    assert done.stdout.startswith("Failed to initialize NVML: Driver/library version mismatch\n")


def test_a_missing_driver_ends_with_nvidias_words_and_code(machine: SimulatedMachine) -> None:
    machine.unload()
    done = machine.smi()
    assert done.returncode == 9
    assert "couldn't communicate with the NVIDIA driver" in done.stdout


def test_a_lost_gpu_ends_with_nvidias_words_and_code(machine: SimulatedMachine) -> None:
    machine.change(0, "state=lost")
    done = machine.smi()
    assert done.returncode == 15
    assert done.stdout == (
        "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU\n"
    )
    assert machine.smi("-i", "1").returncode == 0


def test_a_machine_without_gpus_says_so(machine: SimulatedMachine) -> None:
    machine.description.unlink()
    done = machine.smi()
    assert (done.returncode, done.stdout) == (6, "No devices were found\n")


def test_a_reset_waits_for_processes_and_clears_what_counts_from_loading(
    machine: SimulatedMachine,
) -> None:
    machine.change(0, "ecc_uncorrected=1", "remapped_rows_pending=yes", "recovery_action=1")
    machine.change(0, "process=4000001:10:python")
    busy = machine.smi("--gpu-reset", "-i", "0")
    assert busy.returncode == 19
    assert "currently in use by another process" in busy.stdout
    machine.change(0, "process=none")
    assert machine.smi_lines("-r", "-i", "0")[0] == "GPU 00000000:01:00.0 was successfully reset."
    values = machine.described().gpus[0].values
    assert [values[key] for key in ("ecc_uncorrected", "recovery_action")] == [0, 0]
    assert values["remapped_rows_uncorrected"] == 1


def test_topology_shows_links(machine: SimulatedMachine) -> None:
    assert machine.smi_lines("topo", "-m")[1].split()[:3] == ["GPU0", "X", "NV18"]
    machine.describe(parse_gpus("L4:2"))
    assert machine.smi_lines("topo", "-m")[1].split()[:3] == ["GPU0", "X", "NODE"]


def test_mig_instances_are_made_listed_and_destroyed(machine: SimulatedMachine) -> None:
    assert machine.smi("mig", "-lgip").stdout == "No MIG-enabled devices found.\n"
    machine.smi_lines("-mig", "1", "-i", "0")
    made = machine.smi_lines("mig", "-i", "0", "-cgi", "9,1g.10gb", "-C")
    assert [line.split(" on GPU")[0] for line in made] == [
        "Successfully created GPU instance ID  2",
        "Successfully created GPU instance ID 10",
        "Successfully created compute instance ID  0",
        "Successfully created compute instance ID  0",
    ]
    listed = machine.smi_lines("-L", "-i", "0")
    assert [line.split()[:2] for line in listed[1:]] == [["MIG", "3g.40gb"], ["MIG", "1g.10gb"]]
    assert machine.smi("mig", "-cgi", "0").returncode == 23, "no room for the whole GPU"
    assert machine.smi("mig", "-dgi").returncode == 19, "a compute instance is in it"
    machine.smi_lines("mig", "-dci")
    machine.smi_lines("mig", "-dgi")
    machine.smi_lines("-mig", "0", "-i", "0")
    assert len(machine.smi_lines("-L", "-i", "0")) == 1


def test_instances_that_a_product_cannot_have_are_passed_over(machine: SimulatedMachine) -> None:
    text = machine.described().change(0, ["mig_mode=yes"]).render()
    text = text.replace("mig_instances =", "mig_instances = 9:0:c, 77:0:c, 9:3:c, 19:99:c", 1)
    machine.description.write_text(text)
    assert [line.split()[1] for line in machine.smi_lines("-L", "-i", "0")[1:]] == ["3g.40gb"]


def test_mig_mode_waits_for_the_processes_of_the_gpu(machine: SimulatedMachine) -> None:
    machine.change(0, "process=4000001:10:python")
    assert "pending enable state" in machine.smi("-mig", "1", "-i", "0").stdout
    modes = "--query-gpu=mig.mode.current,mig.mode.pending"
    assert machine.smi_lines(modes, "--format=csv,noheader", "-i", "0") == ["Disabled, Enabled"]
    machine.change(0, "process=none")
    machine.smi_lines("-r", "-i", "0")
    assert machine.smi_lines(modes, "--format=csv,noheader", "-i", "0") == ["Enabled, Enabled"]


@pytest.mark.parametrize(
    ("product", "names"),
    [
        ("A100-40", {"1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"}),
        ("A30", {"1g.6gb", "2g.12gb", "4g.24gb"}),
        ("H200", {"1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"}),
        ("B200", {"1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"}),
    ],
)
def test_profiles_have_the_names_of_the_product(
    machine: SimulatedMachine, product: str, names: set[str]
) -> None:
    machine.describe(parse_gpus(product).change(0, ["mig_mode=yes"]))
    lines = machine.smi_lines("mig", "-lgip")
    assert {line.split()[3] for line in lines if " MIG " in line} == names


def test_pynvml_sees_mig_devices_with_memory_of_their_own(machine: SimulatedMachine) -> None:
    machine.smi_lines("-mig", "1", "-i", "0")
    machine.smi_lines("mig", "-cgi", "9,9", "-C", "-i", "0")
    machine.change(0, "process=4000001:30000:python:C:2")
    (seen,) = machine.ask(
        """
        parts = [nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, each) for each in (0, 1)]
        answer([
            [nvml.nvmlDeviceGetGpuInstanceId(part) for part in parts],
            [nvml.nvmlDeviceGetMemoryInfo(part).used >> 20 for part in parts],
            [len(nvml.nvmlDeviceGetComputeRunningProcesses(part)) for part in parts],
            nvml.nvmlDeviceGetName(parts[0]),
            nvml.nvmlDeviceGetAttributes(parts[0]).gpuInstanceSliceCount,
            nvml.nvmlDeviceGetHandleByUUID(nvml.nvmlDeviceGetUUID(parts[1])) is not None,
            error_of(nvml.nvmlDeviceGetUtilizationRates, gpu),
            error_of(nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, 2),
        ])
        """
    )
    assert seen == [[2, 1], [30000, 0], [1, 0], "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 3, True, 3, 6]


def test_nvitop_reads_the_gpus(machine: SimulatedMachine) -> None:
    machine.change(0, "temperature=77", "utilization_gpu=42")
    done = machine.run("nvitop", "-1")
    assert done.returncode == 0, done.stderr
    assert "77C" in done.stdout and "42%" in done.stdout and VERSION in done.stdout
    assert "ERROR" not in done.stdout + done.stderr


def test_gpustat_reads_the_gpus(machine: SimulatedMachine) -> None:
    machine.change(1, "memory_used_mib=70000", "temperature=77")
    done = machine.run("gpustat", "--json")
    assert done.returncode == 0, done.stderr
    gpus = json.loads(done.stdout)["gpus"]
    assert [gpu["temperature.gpu"] for gpu in gpus] == [34, 77]
    assert [gpu["memory.used"] for gpu in gpus][1] >= 70000


def test_the_program_behind_ops_top_reads_the_gpus_and_what_is_wrong_with_them(
    machine: SimulatedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{machine.root}/lib:{os.environ['PATH']}")
    machine.change(1, "temperature=91")
    assert told()["complaint"] == ""
    assert [(gpu["name"], gpu["temperature.gpu"]) for gpu in told()["listed"]][1] == (
        "NVIDIA H100 80GB HBM3", "91",
    )  # fmt: skip
    machine.change(1, "state=lost")
    assert "lost" in told()["complaint"].lower()


def told() -> dict[str, Any]:
    gpus = Gpus()
    gpus.ask()
    return gpus.tell()
