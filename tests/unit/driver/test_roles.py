"""What the three roles hand to a host, rendered as Ansible does."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rendering import ROOT, Role

NOBLE = {
    "distribution": "Ubuntu",
    "distribution_major_version": "24",
    "distribution_version": "24.04",
    "distribution_release": "noble",
    "fleet_host_gpus": 2,
}
BOOKWORM = {
    "distribution": "Debian",
    "distribution_major_version": "12",
    "distribution_version": "12.5",
    "distribution_release": "bookworm",
    "fleet_host_gpus": 2,
}


def driver(facts: dict[str, Any], **variables: Any) -> Role:
    return Role("nvidia_driver", facts, **variables)


def paths(role: Role) -> list[str]:
    return [entry["path"] for entry in role.value("__nvidia_driver_files")]


def test_ubuntu_takes_its_own_archive_and_debian_nvidias_repository() -> None:
    assert driver(NOBLE).value("nvidia_driver_channel") == "archive"
    assert driver(BOOKWORM).value("nvidia_driver_channel") == "cuda"


def test_the_archive_of_the_host_itself_needs_no_source_of_ours() -> None:
    assert not any("sources.list.d" in path for path in paths(driver(NOBLE)))


def test_a_mirror_of_the_archive_serves_all_its_suites() -> None:
    role = driver(NOBLE, nvidia_driver_ubuntu_repo_url="http://m/ubuntu")
    suites = role.evaluate("__nvidia_driver_ubuntu_repository.suites")
    assert suites == "noble noble-updates noble-security"


def test_nouveau_is_off_and_its_initramfs_follows_the_file_that_says_so() -> None:
    role = driver(NOBLE)
    text = role.render("host/etc/modprobe.d/rackhand-nouveau.conf.j2")
    assert "blacklist nouveau\n" in text
    assert "options nouveau modeset=0\n" in text
    assert role.value("__nvidia_driver_initramfs_after") == [
        "/etc/modprobe.d/rackhand-nouveau.conf"
    ]


def test_security_updates_go_on_without_kernel_and_driver() -> None:
    text = driver(NOBLE).render("host/etc/apt/apt.conf.d/60rackhand-nvidia-driver.j2")
    for name in ('"nvidia-"', '"libnvidia-"', '"cuda-"', '"linux-(generic|image|'):
        assert name in text


def test_persistence_is_on_and_has_a_user_of_its_own() -> None:
    unit = driver(NOBLE).render("host/etc/systemd/system/nvidia-persistenced.service.j2")
    assert "--persistence-mode" in unit
    assert "--no-persistence-mode" not in unit
    assert "--user nvidia-persistenced" in unit


@pytest.mark.parametrize(
    ("variables", "now", "units"),
    [
        ({}, {"nvswitch": False}, ["nvidia-persistenced"]),
        ({}, {"nvswitch": True}, ["nvidia-persistenced", "nvidia-fabricmanager"]),
        (
            {"nvidia_driver_dcgm": True, "nvidia_driver_mig": [{"gpu": 0, "profiles": ["x"]}]},
            {"nvswitch": False},
            ["nvidia-persistenced", "gpu-partitions", "nvidia-dcgm"],
        ),
    ],
)
def test_services_are_those_that_the_hardware_and_the_inventory_want(
    variables: dict[str, Any], now: dict[str, Any], units: list[str]
) -> None:
    now |= {"version": "580.178.04", "loaded": "580.178.04"}
    found = driver(NOBLE, __nvidia_driver_now=now, **variables).value("__nvidia_driver_units")
    assert [unit["name"].removesuffix(".service") for unit in found] == units
    assert {unit["state"] for unit in found} == {"started"}


def test_services_wait_for_the_module_that_they_are_made_for() -> None:
    now = {"nvswitch": True, "version": "595.91.07", "loaded": "580.178.04"}
    units = driver(NOBLE, __nvidia_driver_now=now).value("__nvidia_driver_units")
    assert [unit["state"] for unit in units] == [None, None]
    assert all(unit["enabled"] for unit in units)


def test_no_toolkit_and_no_runtime_are_wanted_by_default() -> None:
    assert not Role("cuda", NOBLE).value("__cuda_wanted")
    assert not Role("container_toolkit", NOBLE).value("__container_toolkit_wanted")


def test_hosts_without_a_gpu_are_left_alone_whatever_is_asked_for() -> None:
    bare = {**NOBLE, "fleet_host_gpus": 0}
    assert not Role("cuda", bare, cuda_toolkit_version="12-9").value("__cuda_wanted")
    role = Role("container_toolkit", bare, container_toolkit_runtime="docker")
    assert not role.value("__container_toolkit_wanted")
    assert driver(bare).value("__nvidia_driver_gpus") == 0


def test_the_four_toolkit_packages_are_of_one_version() -> None:
    role = Role("container_toolkit", NOBLE, container_toolkit_runtime="podman")
    assert role.value("__container_toolkit_packages") == {
        "nvidia-container-toolkit": "1.20.0-1",
        "nvidia-container-toolkit-base": "1.20.0-1",
        "libnvidia-container-tools": "1.20.0-1",
        "libnvidia-container1": "1.20.0-1",
        "podman": "",
    }


# -- MIG ----------------------------------------------------------------------------------------
SMI = r"""#!/bin/sh
# An nvidia-smi that keeps one GPU's MIG state in two files and logs what it is asked to change.
cd "$(dirname "$0")"
case "$*" in
    *--query-gpu=mig.mode.current*) cat mode ;;
    *-lgi*) sed 's/.*/|   0  MIG &   9   1   0:4  |/' instances ;;
    *-dci*) echo destroy-compute >> log ;;
    *-dgi*) echo destroy >> log; : > instances ;;
    *-cgi*) shift 4; echo "create $1" >> log; echo "$1" | tr , '\n' > instances ;;
    *"-mig 1"*) echo on >> log; echo Enabled > mode ;;
    *"-mig 0"*) echo off >> log; echo Disabled > mode ;;
esac
"""


@pytest.fixture
def partitions(tmp_path: Path) -> Any:
    """The role's script over that nvidia-smi; returns what it did."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho refresh >> " + str(tmp_path / "log"))
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "mode").write_text("Disabled\n")
    (tmp_path / "instances").write_text("")

    def run(profiles: list[str]) -> list[str]:
        role = driver(NOBLE, nvidia_driver_mig=[{"gpu": 0, "profiles": profiles}])
        conf = tmp_path / "gpu-partitions.conf"
        conf.write_text(role.render("host/etc/rackhand/gpu-partitions.conf.j2"))
        text = role.render("host/usr/local/lib/rackhand/gpu-partitions.j2")
        script = text.replace("/etc/rackhand/gpu-partitions.conf", str(conf))
        (tmp_path / "log").write_text("")
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(["sh", "-c", script], check=True, env={**os.environ, "PATH": path})
        return (tmp_path / "log").read_text().split("\n")[:-1]

    return run


def test_a_gpu_is_cut_once_and_containers_hear_of_it(partitions: Any) -> None:
    done = partitions(["3g.40gb", "1g.10gb"])
    assert done[:2] == ["on", "create 3g.40gb,1g.10gb"]
    assert "refresh" in done
    assert partitions(["1g.10gb", "3g.40gb"]) == []


def test_another_cut_destroys_the_instances_first(partitions: Any) -> None:
    partitions(["3g.40gb"])
    assert partitions(["1g.10gb"])[:4] == ["destroy-compute", "destroy", "on", "create 1g.10gb"]


def test_an_empty_list_switches_mig_off(partitions: Any) -> None:
    partitions(["3g.40gb"])
    assert partitions([])[:3] == ["destroy-compute", "destroy", "off"]
    assert partitions([]) == []


def test_the_playbook_that_moves_drivers_goes_host_by_host_and_stops_at_a_failure() -> None:
    text = (ROOT / "playbooks" / "driver.yml").read_text()
    assert "serial: 1\n" in text
    assert "any_errors_fatal: true\n" in text
