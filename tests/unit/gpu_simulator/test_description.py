"""The description of a simulated machine: from words to a file, and back."""

from __future__ import annotations

import pytest

from ops.errors import InputError
from ops.lab.gpu import xids
from ops.lab.gpu.catalogue import models, parse_gpus, repaired
from ops.lab.gpu.description import Process, parse_machine
from ops.lab.gpu.keys import readings


@pytest.mark.parametrize("product", models())
def test_every_product_survives_being_written_and_read(product: str) -> None:
    machine = parse_gpus(product, host="node1")
    assert parse_machine(machine.render()) == parse_machine(
        parse_machine(machine.render()).render()
    )
    assert parse_machine(machine.render()).gpus[0].texts["name"] == models()[product].name


def test_products_may_be_mixed_and_each_has_its_own_place() -> None:
    machine = parse_gpus("H100:1,L4:2")
    assert [gpu.texts["pci"] for gpu in machine.gpus] == [
        "0000:01:00.0",
        "0000:02:00.0",
        "0000:03:00.0",
    ]
    assert [gpu.texts["architecture"] for gpu in machine.gpus] == ["hopper", "ada", "ada"]
    assert len({gpu.texts["uuid"] for gpu in machine.gpus}) == 3


def test_hosts_have_gpus_of_their_own_that_stay_the_same() -> None:
    assert parse_gpus("L4", "node1") == parse_gpus("L4", "node1")
    assert parse_gpus("L4", "node1") != parse_gpus("L4", "node2")


def test_a_full_board_of_h100_has_nvswitches_and_two_do_not() -> None:
    assert parse_gpus("H100:8").nvswitch
    assert not parse_gpus("H100:2").nvswitch
    assert not parse_gpus("L4:8").nvswitch


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("H1000", "No GPU is called 'H1000'"),
        ("H100:none", "no number of GPUs"),
        ("H100:0", "no number of GPUs"),
        ("H100:9", "at most 8"),
    ],
)
def test_a_wrong_machine_is_refused_with_the_cure(text: str, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_gpus(text)
    assert words in str(refusal.value)
    assert refusal.value.cure


def test_changes_reach_readings_state_and_processes() -> None:
    gpu = parse_gpus("H100").gpus[0]
    after = gpu.changed(
        ["temperature=91", "state=lost", "clocks_event_reasons=0x48", "process=7:600:python"]
    )
    assert after.values["temperature"] == 91
    assert after.values["clocks_event_reasons"] == 0x48
    assert after.state == "lost"
    assert after.processes == (Process(7, 600, "python"),)
    assert gpu.values["temperature"] == 34, "a description is never changed in place"


def test_a_process_changes_in_place_and_ends() -> None:
    gpu = parse_gpus("H100").gpus[0].changed(["process=7:600:python", "process=8:5:Xorg:G"])
    assert gpu.changed(["process=7:900:python"]).processes[-1].memory_mib == 900
    assert [each.pid for each in gpu.changed(["process=7:none"]).processes] == [8]
    assert gpu.changed(["process=none"]).processes == ()


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("temprature=91", "did you mean temperature"),
        ("temperature", "no change"),
        ("temperature=hot", "whole number"),
        ("utilization_gpu=101", "0 to 100"),
        ("ecc_uncorrected=-1", "0 or more"),
        ("persistence_mode=2", "yes or no"),
        ("state=tired", "ok, lost, hang"),
        ("process=python", "PID:MIB:NAME"),
    ],
)
def test_a_wrong_change_is_refused_with_what_can_be(word: str, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_gpus("H100").gpus[0].changed([word])
    assert words in str(refusal.value)


def test_a_description_with_an_unknown_key_is_refused_with_its_place() -> None:
    text = parse_gpus("L4").render().replace("temperature =", "temparature =")
    with pytest.raises(InputError, match="temparature") as refusal:
        parse_machine(text, "node1:gpus.conf")
    assert refusal.value.place == "node1:gpus.conf"


def test_gpus_are_numbered_without_a_gap() -> None:
    text = parse_gpus("L4:2").render().replace("[gpu 0]", "[gpu 2]")
    with pytest.raises(InputError, match="not GPUs in order"):
        parse_machine(text)


def test_the_machine_has_switches_of_its_own() -> None:
    machine = parse_gpus("L4").change_machine(["secure_boot=yes", "nvswitch=yes"])
    assert (machine.secure_boot, machine.nvswitch) == (True, True)
    assert parse_machine(machine.render()).secure_boot
    with pytest.raises(InputError, match="did you mean secure_boot"):
        machine.change_machine(["secureboot=yes"])


def test_xid_79_loses_the_gpu_and_repair_brings_it_back() -> None:
    gpu = parse_gpus("H100").gpus[0]
    lost = xids.suffer(gpu, 79)
    assert lost.state == "lost"
    assert repaired(lost, 0) == gpu


def test_an_xid_does_not_give_a_gpu_readings_that_it_lacks() -> None:
    gamer = parse_gpus("RTX4090").gpus[0]
    assert xids.suffer(gamer, 48).values.get("ecc_uncorrected") is None


@pytest.mark.parametrize("code", [0, -79, 1000])
def test_what_is_no_xid_is_refused(code: int) -> None:
    with pytest.raises(InputError, match="is no XID"):
        xids.suffer(parse_gpus("H100").gpus[0], code)


def test_every_change_of_an_xid_is_a_change_that_can_be() -> None:
    gpu = parse_gpus("H100").gpus[0]
    for code, xid in xids.XIDS.items():
        tells = [word for word in xid.changes if word != "process=none"]
        assert (xids.suffer(gpu, code) != gpu) == bool(tells), code


def test_every_reading_says_what_it_means() -> None:
    assert len(readings()) > 80
    assert all(key.meaning for key in readings().values())
