"""`ops lab gpu`, with a description in the place of a host."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from ops.cli import lab_gpu
from ops.errors import InputError
from ops.lab.fleet_plan import LabPlan
from ops.lab.gpu import hosts
from ops.lab.gpu.catalogue import parse_gpus
from ops.lab.gpu.description import Machine


class Hosts:
    """Every host's GPUs, held in memory."""

    def __init__(self) -> None:
        self.machines = {f"node{number}": parse_gpus("H100:2") for number in range(1, 5)}

    def read(self, plan: LabPlan, host: str) -> Machine:
        return self.machines[host]

    def change(self, plan: LabPlan, host: str, edit: Callable[[Machine], Machine]) -> Machine:
        self.machines[host] = edit(self.machines[host])
        return self.machines[host]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setattr(hosts, "read", made.read)
    monkeypatch.setattr(hosts, "change", made.change)
    plan = LabPlan("t1", 7, "bookworm", 4)
    monkeypatch.setattr(lab_gpu, "_plan", lambda name, host: plan)
    return made


def ops_lab_gpu(*words: str) -> str:
    done = CliRunner().invoke(lab_gpu.app, list(words), env={"COLUMNS": "160"})
    if done.exception:
        raise done.exception
    return done.stdout


def test_a_gpu_is_changed_and_shown(fleet: Hosts) -> None:
    said = ops_lab_gpu("set", "node2", "1", "temperature=91", "process=7:600:python")
    assert said == "node2 GPU 1: temperature=91 process=7:600:python\n"
    row = " ".join(ops_lab_gpu("show", "node2").splitlines()[-1].split())
    assert row == "node2 1 H100 80GB HBM3 ok 91 600/81559 0 % 7:python"


def test_without_a_host_all_gpu_hosts_are_shown(fleet: Hosts) -> None:
    assert list(json.loads(ops_lab_gpu("show", "--json"))) == ["node2", "node4"]


def test_faults_stand_beside_the_gpu_that_has_them(fleet: Hosts) -> None:
    ops_lab_gpu("set", "node2", "0", "ecc_uncorrected=2", "clocks_event_reasons=0x48")
    shown = ops_lab_gpu("show", "node2").splitlines()
    assert "clocks_event_reasons=0x48 ecc_uncorrected=2" in shown[1]
    assert "ecc_uncorrected" not in shown[2]


def test_the_machine_is_changed_as_a_whole(fleet: Hosts) -> None:
    ops_lab_gpu("set", "node1", "machine", "secure_boot=yes")
    assert fleet.machines["node1"].secure_boot


def test_a_reset_heals_one_gpu_or_all(fleet: Hosts) -> None:
    for index in "01":
        ops_lab_gpu("set", "node1", index, "state=lost", "ecc_uncorrected=2")
    ops_lab_gpu("reset", "node1", "1")
    assert [gpu.state for gpu in fleet.machines["node1"].gpus] == ["lost", "ok"]
    ops_lab_gpu("reset", "node1")
    assert fleet.machines["node1"] == parse_gpus("H100:2")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("set", "node1", "first", "temperature=91"), "'first' is no GPU"),
        (("set", "node1", "5", "temperature=91"), "There is no GPU 5"),
        (("xid", "node1", "0", "0"), "0 is no XID"),
    ],
)
def test_what_cannot_be_is_refused(fleet: Hosts, words: tuple[str, ...], refusal: str) -> None:
    with pytest.raises(InputError, match=refusal):
        ops_lab_gpu(*words)
