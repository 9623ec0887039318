"""NVML as pynvml sees it: readings, versions, faults, events."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pynvml
import pytest

from ops.lab.gpu.build import FLAGS, LIBRARY, SOURCE
from ops.lab.gpu.catalogue import parse_gpus
from tests.unit.gpu_simulator.simulated_machine import VERSION, SimulatedMachine


def test_every_function_that_pynvml_calls_is_exported(machine: SimulatedMachine) -> None:
    library = ctypes.CDLL(str(machine.root / "lib" / f"{LIBRARY}.1"))
    called = re.findall(
        r'_nvmlGetFunctionPointer\("(\w+)"\)', Path(str(pynvml.__file__)).read_text()
    )
    assert len(called) > 400
    assert [name for name in called if not hasattr(library, name)] == []


LAYOUTS = {
    "nvmlPciInfo_t": "nvmlPciInfo_t",
    "nvmlPciInfo_v2_t": "nvmlPciInfo_v2_t",
    "nvmlPciInfoExt_t": "nvmlPciInfoExt_v1_t",
    "nvmlMemory_t": "c_nvmlMemory_t",
    "nvmlMemory_v2_t": "c_nvmlMemory_v2_t",
    "nvmlBAR1Memory_t": "c_nvmlBAR1Memory_t",
    "nvmlUtilization_t": "c_nvmlUtilization_t",
    "nvmlTemperature_t": "c_nvmlTemperature_v1_t",
    "nvmlMarginTemperature_t": "c_nvmlMarginTemperature_v1_t",
    "nvmlGpuThermalSettings_t": "c_nvmlGpuThermalSettings_t",
    "nvmlViolationTime_t": "c_nvmlViolationTime_t",
    "nvmlGpuDynamicPstatesInfo_t": "c_nvmlGpuDynamicPstatesInfo_t",
    "nvmlEccErrorCounts_t": "c_nvmlEccErrorCounts_t",
    "nvmlEccSramErrorStatus_t": "c_nvmlEccSramErrorStatus_v1_t",
    "nvmlRowRemapperHistogram_t": "c_nvmlRowRemapperHistogramValues",
    "nvmlRemappedRowsInfo_v2_t": "c_nvmlRemappedRowsInfo_v2_t",
    "nvmlProcessInfo_t": "c_nvmlProcessInfo_v3_t",
    "nvmlProcessDetail_t": "c_nvmlProcessDetail_v1_t",
    "nvmlProcessDetailList_t": "c_nvmlProcessDetailList_v1_t",
    "nvmlProcessUtilizationSample_t": "c_nvmlProcessUtilizationSample_t",
    "nvmlProcessUtilizationInfo_t": "c_nvmlProcessUtilizationInfo_v1_t",
    "nvmlProcessesUtilizationInfo_t": "c_nvmlProcessesUtilizationInfo_v1_t",
    "nvmlValue_t": "c_nvmlValue_t",
    "nvmlSample_t": "c_nvmlSample_t",
    "nvmlFieldValue_t": "c_nvmlFieldValue_t",
    "nvmlEventData_t": "c_nvmlEventData_t",
    "nvmlGpuInstanceInfo_t": "c_nvmlGpuInstanceInfo_t",
    "nvmlComputeInstanceInfo_t": "c_nvmlComputeInstanceInfo_t",
    "nvmlGpuInstanceProfileInfo_t": "c_nvmlGpuInstanceProfileInfo_t",
    "nvmlGpuInstanceProfileInfo_v2_t": "c_nvmlGpuInstanceProfileInfo_v2_t",
    "nvmlComputeInstanceProfileInfo_t": "c_nvmlComputeInstanceProfileInfo_t",
    "nvmlComputeInstanceProfileInfo_v2_t": "c_nvmlComputeInstanceProfileInfo_v2_t",
    "nvmlDeviceAttributes_t": "c_nvmlDeviceAttributes",
    "nvmlGpuFabricInfo_t": "c_nvmlGpuFabricInfo_t",
    "nvmlGpuFabricInfo_v3_t": "c_nvmlGpuFabricInfo_v3_t",
    "nvmlSystemDriverBranchInfo_t": "c_nvmlSystemDriverBranchInfo_v1_t",
    "nvmlUUID_t": "c_nvmlUUID_t",
}


def test_structures_are_as_large_as_pynvml_says(tmp_path: Path) -> None:
    program = tmp_path / "sizes.c"
    lines = "\n".join(f'printf("{name} %zu\\n", sizeof({name}));' for name in LAYOUTS)
    program.write_text(f'#include <stdio.h>\n#include "nvml.h"\nint main(void) {{ {lines} }}\n')
    binary = tmp_path / "sizes"
    compiler = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-I", str(SOURCE)]
    subprocess.run([*compiler, str(program), "-o", str(binary)], check=True)
    said = subprocess.run([str(binary)], capture_output=True, text=True, check=True).stdout
    sizes = dict(line.split() for line in said.splitlines())
    assert {name: int(size) for name, size in sizes.items()} == {
        name: ctypes.sizeof(getattr(pynvml, theirs)) for name, theirs in LAYOUTS.items()
    }


def test_every_structure_of_the_header_is_compared_or_has_no_counterpart() -> None:
    declared = set(re.findall(r"} (nvml\w+_t);", (SOURCE / "nvml.h").read_text()))
    parts = {"nvmlReturn_t", "nvmlThermalSensor_t", "nvmlPlacement_t", "nvmlProcessInfo_v1_t"}
    assert declared - parts == set(LAYOUTS)


def test_readings_are_those_of_the_description(machine: SimulatedMachine) -> None:
    machine.change(0, "temperature=71", "utilization_gpu=93", "memory_used_mib=70000")
    machine.change(0, "power_usage_mw=650000", "clocks_event_reasons=0x44", "pcie_replays=3")
    (seen,) = machine.ask(
        """
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
        answer({
            "name": nvml.nvmlDeviceGetName(gpu),
            "uuid": nvml.nvmlDeviceGetUUID(gpu),
            "temperature": nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
            "slowdown": nvml.nvmlDeviceGetTemperatureThreshold(gpu, 1),
            "margin": nvml.nvmlDeviceGetMarginTemperature(gpu),
            "load": nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "memory": [memory.total >> 20, memory.used >> 20],
            "first_memory_version_counts_the_reserve":
                nvml.nvmlDeviceGetMemoryInfo(gpu).used > memory.used,
            "power": nvml.nvmlDeviceGetPowerUsage(gpu),
            "limits": nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu),
            "reasons": nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu),
            "replays": nvml.nvmlDeviceGetPcieReplayCounter(gpu),
            "capability": nvml.nvmlDeviceGetCudaComputeCapability(gpu),
            "architecture": nvml.nvmlDeviceGetArchitecture(gpu) == nvml.NVML_DEVICE_ARCH_HOPPER,
            "bus": nvml.nvmlDeviceGetPciInfo(gpu).busId,
            "device": hex(nvml.nvmlDeviceGetPciInfo(gpu).pciDeviceId),
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "cuda": nvml.nvmlSystemGetCudaDriverVersion(),
        })
        """
    )
    assert seen == {
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": machine.described().gpus[0].texts["uuid"],
        "temperature": 71,
        "slowdown": 89,
        "margin": 16,
        "load": 93,
        "memory": [81559, 70000],
        "first_memory_version_counts_the_reserve": True,
        "power": 650000,
        "limits": [200000, 700000],
        "reasons": 0x44,
        "replays": 3,
        "capability": [9, 0],
        "architecture": True,
        "bus": "00000000:01:00.0",
        "device": "0x233010de",
        "driver": VERSION,
        "cuda": 13000,
    }


def test_field_values_each_have_a_code_of_their_own(machine: SimulatedMachine) -> None:
    machine.describe(parse_gpus("H100:1,RTX4090:1"))
    machine.change(0, "recovery_action=2", "temperature_memory=96")
    code = """
        fields = nvml.nvmlDeviceGetFieldValues(gpu, [230, 82, 193, (165, 2), 4])
        answer([[field.nvmlReturn, field.value.siVal] for field in fields])
        """
    assert machine.ask(code) == [[[0, 2], [0, 96], [0, -8], [0, 0], [0, 0]]]
    assert machine.ask(code, index=1) == [[[0, 0], [3, 0], [0, -16], [3, 0], [3, 0]]]


def test_no_getter_of_pynvml_breaks_the_library(machine: SimulatedMachine) -> None:
    (codes,) = machine.ask(
        """
        found = {}
        for name in dir(nvml):
            if not name.startswith("nvmlDeviceGet") or "Handle" in name:
                continue
            try:
                getattr(nvml, name)(gpu)
                found[name] = 0
            except nvml.NVMLError as problem:
                found[name] = problem.value
            except TypeError:  # it takes more than a handle
                pass
        answer(found)
        """
    )
    answered = {name for name, code in codes.items() if code == 0}
    assert len(answered) > 60
    for_mig_devices = ("Attributes", "Attributes_v2", "ComputeInstanceId", "GpuInstanceId")
    for name in for_mig_devices:
        assert codes.pop(f"nvmlDeviceGet{name}") == pynvml.NVML_ERROR_INVALID_ARGUMENT
    allowed = {0, pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_FOUND}
    assert {name: code for name, code in codes.items() if code not in allowed} == {}


def test_a_gamers_gpu_says_not_supported_where_it_lacks_something(
    machine: SimulatedMachine,
) -> None:
    machine.describe(parse_gpus("RTX4090"))
    (codes,) = machine.ask(
        """
        answer([error_of(call, gpu) for call in (
            nvml.nvmlDeviceGetEccMode, nvml.nvmlDeviceGetMigMode, nvml.nvmlDeviceGetSerial,
            nvml.nvmlDeviceGetRemappedRows, nvml.nvmlDeviceGetFanSpeed)])
        """
    )
    assert codes == [3, 3, 3, 3, 0]


def test_uncorrected_errors_show_in_each_of_their_places(machine: SimulatedMachine) -> None:
    machine.change(0, "ecc_uncorrected=3", "ecc_uncorrected_sram=1", "remapped_rows_pending=yes")
    (seen,) = machine.ask(
        """
        total = [nvml.nvmlDeviceGetTotalEccErrors(gpu, 1, counter) for counter in (0, 1)]
        places = [nvml.nvmlDeviceGetMemoryErrorCounter(gpu, 1, 0, place) for place in (2, 7)]
        answer([total, places, nvml.nvmlDeviceGetRemappedRows(gpu)])
        """
    )
    assert seen == [[3, 3], [2, 1], [0, 0, 1, 0]]


def test_processes_hold_memory_of_their_kind(machine: SimulatedMachine) -> None:
    machine.change(0, "process=4000001:60000:python", "process=4000002:5:Xorg:G")
    (seen,) = machine.ask(
        """
        shown = lambda found: [[each.pid, each.usedGpuMemory >> 20] for each in found]
        answer([
            shown(nvml.nvmlDeviceGetComputeRunningProcesses(gpu)),
            shown(nvml.nvmlDeviceGetGraphicsRunningProcesses(gpu)),
            shown(nvml.nvmlDeviceGetMPSComputeRunningProcesses(gpu)),
            nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2).used >> 20,
            nvml.nvmlSystemGetProcessName(4000001),
        ])
        """
    )
    assert seen == [[[4000001, 60000]], [[4000002, 5]], [], 60005, "python"]


def test_devices_are_found_by_uuid_serial_and_address(machine: SimulatedMachine) -> None:
    texts = machine.described().gpus[1].texts
    (indices,) = machine.ask(
        f"""
        answer([nvml.nvmlDeviceGetIndex(handle) for handle in (
            nvml.nvmlDeviceGetHandleByUUID({texts["uuid"]!r}),
            nvml.nvmlDeviceGetHandleBySerial({texts["serial"]!r}),
            nvml.nvmlDeviceGetHandleByPciBusId(b"00000000:02:00.0"),
            nvml.nvmlDeviceGetHandleByPciBusId(b"02:00.0"))])
        """
    )
    assert indices == [1, 1, 1, 1]


def test_links_lead_to_the_other_gpu_or_to_switches(machine: SimulatedMachine) -> None:
    code = """
        answer([nvml.nvmlDeviceGetNvLinkState(gpu, 0), nvml.nvmlDeviceGetNvLinkState(gpu, 1),
                nvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, 1)])
        """
    machine.change(0, "nvlink_down=0x1")
    assert machine.ask(code) == [[0, 1, pynvml.NVML_NVLINK_DEVICE_TYPE_GPU]]
    machine.describe(machine.described().change_machine(["nvswitch=yes"]))
    assert machine.ask(code) == [[0, 1, pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH]]


def test_another_loaded_version_than_the_installed_one_is_a_mismatch(
    machine: SimulatedMachine,
) -> None:
    machine.load("595.91.07")
    assert machine.failure() == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    machine.install("595.91.07")
    assert machine.ask("answer(nvml.nvmlSystemGetDriverVersion())") == ["595.91.07"]


def test_no_loaded_module_is_no_driver(machine: SimulatedMachine) -> None:
    machine.unload()
    assert machine.failure() == pynvml.NVML_ERROR_DRIVER_NOT_LOADED


def test_a_lost_gpu_fails_and_the_other_goes_on(machine: SimulatedMachine) -> None:
    machine.change(1, "state=lost")
    assert machine.failure(["nvmlInit", "nvmlDeviceGetHandleByIndex(1)"]) == 15
    assert machine.ask("answer(nvml.nvmlDeviceGetTemperature(gpu, 0))") == [34]


def test_a_fault_appears_to_a_process_that_is_reading(machine: SimulatedMachine) -> None:
    reader = machine.start(
        """
        for _ in sys.stdin:
            answer([error_of(nvml.nvmlDeviceGetTemperature, gpu, 0) or
                    nvml.nvmlDeviceGetTemperature(gpu, 0)])
        """
    )
    assert reader.stdin is not None and reader.stdout is not None

    def reading() -> str:
        reader.stdin.write("\n")
        reader.stdin.flush()
        return reader.stdout.readline().strip()

    assert reading() == "[34]"
    machine.change(0, "temperature=91")
    assert reading() == "[91]"
    machine.change(0, "state=lost")
    assert reading() == "[15]"
    machine.change(0, "state=ok")
    assert reading() == "[91]"
    reader.communicate(timeout=5)


def test_a_hanging_gpu_blocks_its_callers_until_it_answers_again(
    machine: SimulatedMachine,
) -> None:
    machine.change(0, "state=hang")
    caller = machine.start("answer(nvml.nvmlDeviceGetTemperature(gpu, 0))")
    with pytest.raises(subprocess.TimeoutExpired):
        caller.communicate(timeout=0.8)
    assert machine.ask("answer(nvml.nvmlDeviceGetTemperature(gpu, 0))", index=1) == [34]
    machine.change(0, "state=ok")
    assert caller.communicate(timeout=5)[0].strip() == "34"


def test_an_xid_reaches_each_event_set_once(machine: SimulatedMachine) -> None:
    machine.report_xid(0, 31)  # before the registration: of no interest
    waiter = machine.start(
        """
        sets = [nvml.nvmlEventSetCreate() for _ in range(2)]
        for each in sets:
            nvml.nvmlDeviceRegisterEvents(gpu, nvml.nvmlEventTypeXidCriticalError, each)
        answer("registered")
        for each in sets:
            event = nvml.nvmlEventSetWait_v2(each, 5000)
            answer([event.eventData, event.eventType, nvml.nvmlDeviceGetIndex(event.device)])
        answer(error_of(nvml.nvmlEventSetWait_v2, sets[0], 50))
        """
    )
    assert waiter.stdout is not None
    assert waiter.stdout.readline().strip() == '"registered"'
    machine.report_xid(1, 13)  # another GPU's
    machine.report_xid(0, 48)
    output, errors = waiter.communicate(timeout=5)
    assert output.split("\n")[:3] == ["[48, 8, 0]", "[48, 8, 0]", "10"], errors


def test_the_xid_that_loses_a_gpu_is_told_before_the_loss(machine: SimulatedMachine) -> None:
    waiter = machine.start(
        """
        each = nvml.nvmlEventSetCreate()
        nvml.nvmlDeviceRegisterEvents(gpu, nvml.nvmlEventTypeXidCriticalError, each)
        answer("registered")
        answer(nvml.nvmlEventSetWait_v2(each, 5000).eventData)
        answer(error_of(nvml.nvmlEventSetWait_v2, each, 5000))
        """
    )
    assert waiter.stdout is not None
    waiter.stdout.readline()
    machine.report_xid(0, 79)
    machine.change(0, "state=lost")
    assert waiter.communicate(timeout=5)[0].split() == ["79", "15"]


def test_threads_read_while_the_description_is_written_anew(machine: SimulatedMachine) -> None:
    reader = machine.start(
        """
        import threading
        seen, until = set(), threading.Event()
        def read():
            while not until.is_set():
                seen.add(nvml.nvmlDeviceGetTemperature(gpu, 0))
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads: thread.start()
        sys.stdin.read()
        until.set()
        for thread in threads: thread.join()
        answer(sorted(seen))
        """
    )
    for degrees in (40, 50, 60) * 5:
        machine.change(0, f"temperature={degrees}")
        time.sleep(0.01)
    output, errors = reader.communicate(timeout=5)
    assert reader.returncode == 0, errors
    assert set(map(int, output.strip("[]\n").split(","))) <= {34, 40, 50, 60}
    assert "60" in output


def test_settings_are_written_into_the_description(machine: SimulatedMachine) -> None:
    machine.ask(
        """
        nvml.nvmlDeviceSetPersistenceMode(gpu, 1)
        nvml.nvmlDeviceSetPowerManagementLimit(gpu, 500000)
        assert error_of(nvml.nvmlDeviceSetPowerManagementLimit, gpu, 900000) == 2
        """
    )
    values = machine.described().gpus[0].values
    assert (values["persistence_mode"], values["power_limit_mw"]) == (1, 500000)
    assert machine.described().gpus[1].values["persistence_mode"] == 0


def test_settings_of_many_processes_at_once_all_arrive(machine: SimulatedMachine) -> None:
    machine.describe(parse_gpus("L4:8"))
    calls = [
        threading.Thread(target=machine.smi, args=("-pm", "1", "-i", str(index)))
        for index in range(8)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert [gpu.values["persistence_mode"] for gpu in machine.described().gpus] == [1] * 8
