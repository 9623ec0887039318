import json
from typing import Any

from ops.driver.state import read_state

SOUND: dict[str, Any] = {
    "devices": ["0x2330"],
    "kernel": "6.8.0-90-generic",
    "next_kernel": "6.8.0-90-generic",
    "loaded": {"version": "580.178.04", "flavour": "open"},
    "installed": {"version": "580.178.04", "flavour": "open"},
    "installed_next": {"version": "580.178.04", "flavour": "open"},
    "nouveau": False,
    "secure_boot": False,
    "nvswitch": False,
    "listed": [["0", "NVIDIA H100 80GB HBM3", "GPU-1", "580.178.04", "81559"]],
    "complaint": "",
    "record": {"channel": "archive"},
    "drained": "",
}


def findings(**changes: Any) -> list[str]:
    return read_state("one", json.dumps(SOUND | changes)).findings


def test_a_sound_host_has_no_findings() -> None:
    assert findings() == []


def test_a_loaded_module_that_is_not_the_installed_one_wants_a_reboot() -> None:
    installed = {"version": "595.91.07", "flavour": "open"}
    assert findings(installed_next=installed) == [
        "580.178.04 is loaded, 595.91.07 is installed: reboot"
    ]


def test_a_next_kernel_without_a_driver_is_found_before_the_boot() -> None:
    assert findings(next_kernel="6.8.0-94-generic", installed_next=None) == [
        "kernel 6.8.0-94-generic, which boots next, has no driver"
    ]


def test_a_gpu_that_does_not_answer_is_counted() -> None:
    assert findings(devices=["0x2330", "0x2330"]) == ["2 GPUs on the bus, 1 answer"]


def test_what_nvidia_smi_complains_of_is_a_finding_beside_the_missing_gpu() -> None:
    lost = "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost."
    assert findings(complaint=lost, listed=[]) == [lost, "1 GPUs on the bus, 0 answer"]


def test_where_nouveau_holds_the_gpus_nvidia_smi_has_nothing_to_say() -> None:
    assert findings(nouveau=True, complaint="no driver", loaded=None, listed=[]) == [
        "nouveau holds the GPUs: reboot"
    ]


def test_a_host_without_a_gpu_needs_no_driver() -> None:
    assert findings(devices=[], loaded=None, installed_next=None, complaint="no nvidia-smi") == []
