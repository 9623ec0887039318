"""The description of a host's GPUs, changed from afar: SSH is a local shell here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ops.errors import InputError, RemoteError
from ops.lab.fleet_plan import LabPlan
from ops.lab.gpu import hosts
from ops.lab.gpu.catalogue import parse_gpus
from tests.unit.gpu_simulator.simulated_machine import SimulatedMachine

PLAN = LabPlan("t1", 7, "bookworm", 1)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedMachine:
    """A host whose root is a folder, and whose `systemd-cat` writes to `log`."""
    made = SimulatedMachine(tmp_path)
    made.describe(parse_gpus("H100:2"))
    journal = tmp_path / "bin/systemd-cat"
    journal.parent.mkdir()
    journal.write_text(f"#!/bin/sh\ncat >> {tmp_path}/log\n")
    journal.chmod(0o755)

    def ssh(
        plan: LabPlan, name: str, command: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        for folder in ("/etc/rackhand-simulator", "/run/rackhand-simulator"):
            command = command.replace(folder, f"{tmp_path}{folder}")
        words = ["sh", "-c", f"PATH={journal.parent}:$PATH; {command}"]
        return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)

    monkeypatch.setattr(hosts, "_ssh", ssh)
    return made


def test_a_change_reaches_the_file_of_the_host(host: SimulatedMachine) -> None:
    hosts.change(PLAN, "node1", lambda machine: machine.change(1, ["temperature=91"]))
    assert [gpu.values["temperature"] for gpu in host.described().gpus] == [34, 91]
    assert hosts.read(PLAN, "node1") == host.described()


def test_a_change_that_somebody_makes_meanwhile_is_kept(host: SimulatedMachine) -> None:
    once = iter([True])

    def edit(machine: hosts.Machine) -> hosts.Machine:
        if next(once, False):
            host.change(0, "temperature=60")  # after our reading, before our writing
        return machine.change(1, ["temperature=91"])

    hosts.change(PLAN, "node1", edit)
    assert [gpu.values["temperature"] for gpu in host.described().gpus] == [60, 91]


def test_an_xid_is_an_event_a_line_of_the_log_and_its_consequence(host: SimulatedMachine) -> None:
    hosts.inject_xid(PLAN, "node1", 1, 79)
    assert host.events.read_text() == "1 79\n"
    line = "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus\n"
    assert (host.root / "log").read_text() == line
    assert host.events.with_name("kernel.log").read_text() == line
    assert [gpu.state for gpu in host.described().gpus] == ["ok", "lost"]


def test_an_xid_alone_leaves_the_readings(host: SimulatedMachine) -> None:
    hosts.inject_xid(PLAN, "node1", 0, 48, consequences=False)
    assert host.events.read_text() == "0 48\n"
    assert host.described() == parse_gpus("H100:2")


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(
    host: SimulatedMachine,
) -> None:
    with pytest.raises(InputError, match="no GPU 2"):
        hosts.inject_xid(PLAN, "node1", 2, 79)
    assert not host.events.exists()


def test_a_host_without_gpus_is_told_how_to_get_some(host: SimulatedMachine) -> None:
    host.description.unlink()
    with pytest.raises(InputError) as refusal:
        hosts.read(PLAN, "node1")
    assert "ops lab up --gpu" in refusal.value.cure


def test_a_failed_change_says_what_the_host_said(host: SimulatedMachine) -> None:
    host.description.with_name("gpus.conf.new").mkdir()  # in the way of the new file
    with pytest.raises(RemoteError, match=r"gpus\.conf\.new"):
        hosts.change(PLAN, "node1", lambda machine: machine.change(0, ["temperature=91"]))
    assert host.described().gpus[0].values["temperature"] == 34
