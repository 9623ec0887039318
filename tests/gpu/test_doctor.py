"""The doctor on a real GPU: `make test-gpu`. It asks the machine itself: `ops doctor --local`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from on_gpu import ON_GPU, note

from ops.places import ROOT

pytestmark = pytest.mark.gpu

NOBODY = 65534


def examine(**more: Any) -> tuple[int, dict[str, Any]]:
    """Let it look; its exit status, and the host as it tells it."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.doctor", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, **more,
    )  # fmt: skip
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode
    (host,) = document["hosts"]
    return done.returncode, host


def told(host: dict[str, Any]) -> str:
    """What it says of the GPUs, in one line."""
    found = [f"{each['severity']} {each['case']}: {each['symptom']}" for each in host["findings"]]
    return "; ".join([*found, *(f"untold: {each}" for each in host["complaints"])]) or "nothing"


def of_the_gpu(host: dict[str, Any], case: str) -> list[dict[str, Any]]:
    return [each for each in host["findings"] if each["case"] == case]


def test_a_gpu_that_is_well_has_nothing_critical() -> None:
    status, host = examine()
    note("doctor, a GPU at rest", f"exit status {status}; {told(host)}")
    assert status == 0
    assert [each for each in host["findings"] if each["severity"] == "critical"] == []


def test_an_xid_of_a_program_is_told_with_the_kernels_words_and_alarms_nobody() -> None:
    before = of_the_gpu(examine()[1], "gpu-xid")
    done = subprocess.run([sys.executable, str(ON_GPU), "wild"], capture_output=True)
    assert done.returncode != 0
    status, host = examine()
    (found,) = of_the_gpu(host, "gpu-xid")
    note("doctor, after XID 31", f"exit status {status}; {found['symptom']}; {found['cause']}")
    assert status == 0
    assert found["severity"] == "info"
    assert "XID 31" in found["symptom"]
    assert "MMU Fault" in " ".join(found["evidence"])
    assert found["evidence"] != [line for each in before for line in each["evidence"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be somebody else")
def test_nobody_sees_the_gpus_too_and_is_told_what_he_may_not_see() -> None:
    status, host = examine(user=NOBODY, group=NOBODY, extra_groups=[])
    note("doctor, as nobody", f"exit status {status}; {told(host)}")
    assert status in (0, 2)
    assert [each for each in host["findings"] if each["severity"] == "critical"] == []
