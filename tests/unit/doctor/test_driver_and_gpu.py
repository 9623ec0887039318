"""Driver and GPU rules: each case by the evidence that shows it, and nothing else beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ops.doctor.evidence import gpu as gather
from ops.doctor.finding import Finding
from ops.doctor.judge import judge
from tests.unit.doctor.healthy import NOW, process
from tests.unit.gpu_simulator.simulated_machine import SimulatedMachine

Change = Callable[[dict[str, Any]], Any]
MISMATCH = ("Failed to initialize NVML: Driver/library version mismatch\n"
            "NVML library version: 580.195\n")  # fmt: skip


def findings(evidence: dict[str, Any]) -> list[Finding]:
    report = judge("gpu1", evidence)
    assert report.complaints == ()
    return list(report.findings)


def gone(evidence: dict[str, Any], **more: Any) -> None:
    """No module is loaded."""
    evidence["gpu"].update(
        {"loaded": None, "gpus": [], "processes": [], "cuda": None,
         "smi": {"status": 9, "output": "NVIDIA-SMI has failed"}, **more}
    )  # fmt: skip


def kernel(evidence: dict[str, Any], text: str, hours: float = 0.5) -> None:
    evidence["machine"]["kernel_log"].append(f"{NOW - hours * 3600:.0f} {text}")


def silent(evidence: dict[str, Any], status: int, output: str) -> None:
    """nvidia-smi ends so."""
    evidence["gpu"].update({"smi": {"status": status, "output": output}, "gpus": []})
    del evidence["gpu"]["processes"]


def one(evidence: dict[str, Any], **fields: str) -> None:
    """GPU 1 tells otherwise; _ stands for a dot."""
    evidence["gpu"]["gpus"][1].update(
        {key.replace("__", "."): value for key, value in fields.items()}
    )


def xid(code: int, **more: Any) -> Change:
    return lambda e: kernel(e, f"NVRM: Xid (PCI:0000:02:00): {code}, pid=7, name=vllm", **more)


CASES: dict[str, Change] = {
    "driver-not-installed": lambda e: gone(
        e, installed=None, installed_next=None, libraries={"libnvidia-ml.so": []},
        smi={"status": 127, "output": ""},
    ),
    "driver-missing-for-kernel": lambda e: gone(
        e, installed=None, installed_next=None, dkms="nvidia/580.178.04: added", headers=False
    ),
    "driver-missing-for-next-kernel": lambda e: e["gpu"].update(
        installed_next=None, next_kernel="6.8.0-101-generic"
    ),
    "driver-not-loaded": gone,
    "driver-library-mismatch": lambda e: silent(e, 18, MISMATCH),
    "driver-reboot-pending": lambda e: e["gpu"].update(installed={"version": "580.200.01"}),
    "nouveau-holds-gpus": lambda e: gone(e, nouveau=True),
    "secure-boot-refuses-module": lambda e: gone(e, secure_boot=True),
    "open-module-required": lambda e: (gone(e), kernel(
        e, "NVRM: installed in this system requires use of the NVIDIA open kernel modules."
    )),
    "gpu-needs-other-branch": lambda e: (gone(e), kernel(
        e, "NVRM: The NVIDIA Tesla V100 GPU installed in this system is supported through the "
        "NVIDIA 580.xx Legacy drivers."
    )),
    "gpu-init-failed": lambda e: kernel(e, "NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x62)"),
    "nvidia-smi-missing": lambda e: silent(e, 127, ""),
    "device-nodes-missing": lambda e: (
        silent(e, 9, "NVIDIA-SMI has failed"), e["gpu"].update(nodes=[], expected=0)
    ),
    "driver-hangs": lambda e: silent(e, 124, ""),
    "driver-not-answering": lambda e: silent(e, 6, "No devices were found"),
    "fabric-manager-not-running": lambda e: e["gpu"].update(
        nvswitch=True, cuda={"code": 802, "error": "CUDA_ERROR_SYSTEM_NOT_READY", "count": 0}
    ),
    "cuda-library-mismatch": lambda e: e["gpu"].update(
        cuda={"code": 803, "error": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "count": 0}
    ),
    "cuda-does-not-start": lambda e: e["gpu"].update(
        cuda={"code": 999, "error": "CUDA_ERROR_UNKNOWN", "count": 0}
    ),
    "persistence-off": lambda e: one(e, persistence_mode="Disabled"),
    "container-toolkit-missing": lambda e: e["gpu"]["container"].update(runtimes=["docker"]),
    "gpu-missing": lambda e: e["gpu"].update(expected=3),
    "gpu-ecc-uncorrected": lambda e: one(e, ecc__errors__uncorrected__volatile__total="3"),
    "gpu-row-remap-failed": lambda e: one(e, remapped_rows__failure="Yes"),
    "gpu-row-remap-pending": lambda e: one(e, remapped_rows__pending="Yes"),
    "gpu-wants-recovery": lambda e: one(e, gpu_recovery_action="Drain and Reset"),
    "gpu-hot": lambda e: one(e, temperature__gpu="91"),
    "gpu-throttled-by-hardware": lambda e: one(
        e, clocks_event_reasons__hw_thermal_slowdown="Active"
    ),
    "gpu-memory-orphaned": lambda e: (
        one(e, memory__used="75000"),
        e["gpu"]["processes"].append(process(1, "4711", 4000, "session-3.scope")),
    ),
    "gpu-pcie-narrow": lambda e: one(e, pcie__link__width__current="8"),
    "gpu-mig-pending": lambda e: one(e, mig__mode__pending="Enabled"),
    "gpu-compute-prohibited": lambda e: one(e, compute_mode="Prohibited"),
    "gpu-nvlink-down": lambda e: e["gpu"].update(
        nvlink="GPU 0: H100\n\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>\n"
    ),
    "gpu-xid": xid(48),
}  # fmt: skip


def test_a_host_that_is_well_has_no_findings(healthy: dict[str, Any]) -> None:
    assert findings(healthy) == []


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_named_alone_and_its_texts_are_whole(
    healthy: dict[str, Any], case: str
) -> None:
    CASES[case](healthy)
    found = findings(healthy)
    assert [finding.case for finding in found] == [case]
    texts = (found[0].symptom, found[0].cause, found[0].cure)
    assert not any("{" in text or "(unknown" in text for text in texts), texts
    assert found[0].evidence


@pytest.mark.parametrize(
    ("code", "hours", "severity"),
    [(79, 1, "critical"), (48, 1, "critical"), (48, 30, "info"), (94, 1, "warning"),
     (31, 1, "info"), (999, 1, "warning")],
)  # fmt: skip
def test_an_xid_is_as_bad_as_what_gets_the_gpu_well(
    healthy: dict[str, Any], code: int, hours: float, severity: str
) -> None:
    one(healthy, gpu_recovery_action="[N/A]")
    xid(code, hours=hours)(healthy)
    assert [finding.severity for finding in findings(healthy)] == [severity]


def test_a_reset_that_the_gpu_no_longer_asks_for_is_history(healthy: dict[str, Any]) -> None:
    xid(119)(healthy)
    assert [finding.severity for finding in findings(healthy)] == ["info"]


def test_another_containers_xid_is_not_ours(healthy: dict[str, Any]) -> None:
    healthy["machine"]["systemd"] = False
    kernel(healthy, "NVRM: Xid (PCI:0000:9a:00): 79, GPU has fallen off the bus.")
    assert findings(healthy) == []


def test_a_container_that_was_given_one_of_eight_gpus_misses_none(healthy: dict[str, Any]) -> None:
    healthy["machine"]["systemd"] = False
    healthy["gpu"].update(devices=["0x2330"] * 8, expected=0)
    assert findings(healthy) == []


def test_memory_of_a_process_that_has_ended_needs_a_reboot_not_a_kill(
    healthy: dict[str, Any],
) -> None:
    healthy["gpu"]["processes"][0]["dead"] = True
    (found,) = findings(healthy)
    assert found.case == "gpu-memory-orphaned"
    assert "100" in found.symptom
    assert found.cure.startswith("ops restart host gpu1")
    assert "engine@chat-blue.service" in found.evidence[1]


def test_memory_that_nobody_holds_is_named(healthy: dict[str, Any]) -> None:
    healthy["gpu"]["processes"].pop()
    (found,) = findings(healthy)
    assert found.symptom == "71000 MiB are held by no process that can be seen"


def gathered(healthy: dict[str, Any]) -> dict[str, Any]:
    units = {200: "engine@chat-blue.service"}
    return {**healthy, "gpu": gather.gather(lambda pid: units.get(pid, ""))}


def test_simulated_gpus_that_are_well_are_found_so(
    simulated: SimulatedMachine, healthy: dict[str, Any]
) -> None:
    evidence = gathered(healthy)
    assert [about["index"] for about in evidence["gpu"]["gpus"]] == ["0", "1"]
    assert evidence["gpu"]["gpus"][0]["gpu_recovery_action"] == "None"
    assert [f for f in findings(evidence) if f.severity != "info"] == []


def test_nvidia_smis_own_words_of_a_lost_gpu_are_understood(
    simulated: SimulatedMachine, healthy: dict[str, Any]
) -> None:
    simulated.change(1, "state=lost")
    evidence = gathered(healthy)
    assert [about["index"] for about in evidence["gpu"]["gpus"]] == ["0"]
    lost = [f for f in findings(evidence) if f.severity == "critical"]
    assert [(f.case, f.subject) for f in lost] == [("gpu-lost", "GPU 1")]


def test_nvidia_smis_own_words_of_a_mismatch_are_understood(
    simulated: SimulatedMachine, healthy: dict[str, Any]
) -> None:
    simulated.load("575.57.08")
    assert [f.case for f in findings(gathered(healthy))] == ["driver-library-mismatch"]


def test_a_field_that_a_driver_does_not_know_costs_only_that_field(
    simulated: SimulatedMachine, healthy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = ("not.a.field", *gather.HEALTH_FIELDS)
    monkeypatch.setattr(gather, "HEALTH_FIELDS", fields)
    about = gathered(healthy)["gpu"]["gpus"][1]
    assert about["gpu_recovery_action"] == "None"
    assert "not.a.field" not in about


def test_a_driver_that_hangs_does_not_hang_the_doctor(
    simulated: SimulatedMachine, healthy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "SMI_SECONDS", 1.0)
    simulated.change(0, "state=hang")
    assert [f.case for f in findings(gathered(healthy))] == ["driver-hangs"]


def test_processes_of_simulated_gpus_have_their_units(
    simulated: SimulatedMachine, healthy: dict[str, Any]
) -> None:
    simulated.change(0, "process=999999:5000:gone")
    found = [f for f in findings(gathered(healthy)) if f.severity == "warning"]
    assert [(f.case, f.subject.split(" (")[0]) for f in found] == [("gpu-memory-orphaned", "GPU 0")]
    assert "999999" in found[0].symptom
