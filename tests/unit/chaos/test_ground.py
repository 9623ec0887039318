"""`ops chaos` refuses every inventory but a lab's own, before it touches anything."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ops.chaos import ground
from ops.errors import InputError
from ops.fleet.model import Fleet, Host
from ops.lab.fleet_plan import LabPlan
from ops.places import ROOT

LAB = LabPlan("t1", 7, "bookworm", 2)
HOSTS = tuple(
    Host(
        name=node,
        address=LAB.address(node),
        groups=frozenset({"gpu"}),
        private_address=LAB.address(node),
        key_file=str(LAB.paths.private_key),
    )
    for node in LAB.nodes
)
FLEET = Fleet(inventory=Path("lab"), domain="agent.rackhand.test", hosts=HOSTS)


def test_a_labs_own_hosts_are_its_ground() -> None:
    assert ground.is_of(LAB, FLEET)


@pytest.mark.parametrize(
    "hosts",
    [
        HOSTS[:1],
        (*HOSTS, replace(HOSTS[0], name="gpu1", address="192.0.2.7")),
        (replace(HOSTS[0], address="192.0.2.7"), HOSTS[1]),
        (replace(HOSTS[0], key_file="/root/.ssh/id_ed25519"), HOSTS[1]),
        (replace(HOSTS[0], port=2222), HOSTS[1]),
    ],
    ids=["one is missing", "one more", "another address", "another key", "another port"],
)
def test_hosts_that_are_not_exactly_the_labs_are_refused(hosts: tuple[Host, ...]) -> None:
    assert not ground.is_of(LAB, replace(FLEET, hosts=hosts))


def test_an_inventory_that_only_says_it_is_a_labs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts.yml").write_text(f"{ground.HEADER}all: {{hosts: {{gpu1: }}}}\n")
    monkeypatch.setattr(ground, "require_lab_tools", lambda: None)
    monkeypatch.setattr(ground, "load", lambda _: replace(FLEET, hosts=HOSTS[:1]))
    monkeypatch.setattr(ground, "labs", lambda: ["t1"])
    monkeypatch.setattr(ground, "require_plan", lambda _: LAB)
    with pytest.raises(InputError, match="of no lab of this machine"):
        ground.require_lab(tmp_path)


def test_a_lab_that_is_not_up_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts.yml").write_text(ground.HEADER)
    monkeypatch.setattr(ground, "require_lab_tools", lambda: None)
    monkeypatch.setattr(ground, "load", lambda _: FLEET)
    monkeypatch.setattr(ground, "labs", lambda: ["t1"])
    monkeypatch.setattr(ground, "require_plan", lambda _: LAB)
    monkeypatch.setattr(ground, "_addresses", lambda _: [])
    with pytest.raises(InputError, match="not up on this machine"):
        ground.require_lab(tmp_path)


@pytest.mark.parametrize("inventory", ["inventories/example", "inventories/fleet"])
@pytest.mark.parametrize(
    "words", [("list",), ("inject", "kill", "gpu1:nginx.service"), ("end", "all")]
)
def test_the_command_refuses_an_inventory_that_a_person_wrote(
    inventory: str, words: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", "chaos", *words, "-i", inventory],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "for the lab only" in done.stderr
    assert "cure:  ops lab up" in done.stderr
