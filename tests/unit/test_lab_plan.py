"""What a lab is to be: names, addresses, layouts, and refusals with a cure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ops.errors import InputError, OpsError
from ops.lab import fleet_plan
from ops.lab.fleet_plan import GROUPS, LabPlan, load_plan


def plan(size: int = 1, image: str = "bookworm", name: str = "t1") -> LabPlan:
    return LabPlan(name, 7, image, size)


@pytest.mark.parametrize(
    ("size", "layout"),
    [
        (1, {key: ["node1"] for key in GROUPS}),
        (2, {key: ["node1"] for key in GROUPS} | {"gpu": ["node2"]}),
        (
            3,
            {key: ["node1"] for key in ("agent", "edge")}
            | {"gpu": ["node2"]}
            | {key: ["node3"] for key in ("data", "monitoring")},
        ),
    ],
)
def test_layouts_are_those_of_the_architecture(size: int, layout: dict[str, list[str]]) -> None:
    assert plan(size).groups() == layout


def test_hosts_beyond_three_are_engines() -> None:
    assert plan(6).groups()["gpu"] == ["node2", "node4", "node5", "node6"]


def test_addresses_do_not_meet_each_other_or_the_gateway() -> None:
    largest = plan(20)
    addresses = {largest.address(host) for host in largest.hosts} | {largest.gateway}
    assert len(addresses) == len(largest.hosts) + 1


def test_every_host_knows_the_domain_and_the_authority() -> None:
    lines = plan(3).names().splitlines()
    assert "10.77.7.11 node1 agent.rackhand.test" in lines
    assert "10.77.7.2 outside acme.rackhand.test" in lines


def test_outside_is_debian_even_beside_a_facade() -> None:
    facade = plan(image="ubuntu-24.04-facade")
    assert facade.image_of("outside").name == "trixie"
    assert facade.image_of("node1").name == "ubuntu-24.04-facade"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Lab_1"}, "no name for a lab"),
        ({"name": ""}, "no name for a lab"),
        ({"name": "../x"}, "no name for a lab"),
        ({"size": 0}, "1 to 20 hosts"),
        ({"size": 21}, "1 to 20 hosts"),
        ({"image": "noble"}, "No image is called 'noble'"),
    ],
)
def test_a_wrong_word_is_refused_with_its_cure(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        plan(**change)  # type: ignore[arg-type]
    assert refused.value.cure


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ops.lab.paths.STATE", tmp_path)
    return tmp_path


def test_a_plan_is_read_as_it_was_saved(state: Path) -> None:
    plan(4).save()
    assert load_plan("t1") == plan(4)
    assert load_plan("t2") is None


def test_a_damaged_plan_names_its_file_and_the_cure(state: Path) -> None:
    path = state / "labs/t1/lab.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(OpsError) as refused:
        load_plan("t1")
    assert refused.value.place == str(path)
    assert "ops lab down" in refused.value.cure


def test_a_lab_that_does_not_exist_is_named_with_the_way_to_make_it(state: Path) -> None:
    with pytest.raises(InputError) as refused:
        fleet_plan.require_plan("none")
    assert refused.value.cure == "ops lab up --name none"


def test_a_plan_of_before_gpus_has_none(state: Path) -> None:
    path = state / "labs/t1/lab.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"name": "t1", "index": 5, "image_name": "bookworm", "size": 1}')
    loaded = load_plan("t1")
    assert loaded is not None
    assert not loaded.is_simulated("node1")
    assert "mirror.rackhand.test" not in loaded.names()


def test_only_hosts_of_group_gpu_are_simulated_and_all_know_the_mirror(state: Path) -> None:
    wanted = replace(plan(4), gpus="H100:2")
    wanted.save()
    assert load_plan("t1") == wanted
    assert [host for host in wanted.hosts if wanted.is_simulated(host)] == ["node2", "node4"]
    outside = wanted.address("outside")
    assert f"{outside} outside acme.rackhand.test mirror.rackhand.test" in wanted.names()


def test_a_gpu_that_nobody_knows_is_refused_with_its_cure() -> None:
    with pytest.raises(InputError, match="Z900") as refused:
        replace(plan(1), gpus="Z900:2")
    assert refused.value.cure
