"""Which packages are a driver: names per distribution, channel, branch and kind of module."""

from __future__ import annotations

import pytest
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Host,
    Plan,
    Step,
    Wanted,
    branch_in,
    branch_of,
    dcgm_names,
    driver_names,
    is_driver,
    leftovers,
    pins,
    upstream,
)

KERNELS = ["6.1.0-990-amd64"]


@pytest.mark.parametrize(
    ("distribution", "wanted", "module", "names"),
    [
        (
            "ubuntu",
            Wanted("archive", "580"),
            "open",
            "nvidia-headless-no-dkms-580-server-open nvidia-utils-580-server "
            "linux-modules-nvidia-580-server-open-generic",
        ),
        (
            "ubuntu",
            Wanted("archive", "595", flavour="generic-hwe-24.04"),
            "proprietary",
            "nvidia-headless-no-dkms-595-server nvidia-utils-595-server "
            "linux-modules-nvidia-595-server-generic-hwe-24.04",
        ),
        (
            "ubuntu",
            Wanted("archive", "580", fabric_manager=True),
            "open",
            "nvidia-headless-no-dkms-580-server-open nvidia-utils-580-server "
            "linux-modules-nvidia-580-server-open-generic nvidia-fabricmanager-580",
        ),
        (
            "ubuntu",
            Wanted("cuda", "580"),
            "open",
            "libnvidia-compute-580 nvidia-utils-580 nvidia-compute-utils-580 nvidia-dkms-580-open "
            "linux-headers-6.1.0-990-amd64",
        ),
        (
            "ubuntu",
            Wanted("cuda", "595", fabric_manager=True),
            "proprietary",
            "libnvidia-compute nvidia-utils nvidia-compute-utils nvidia-dkms "
            "linux-headers-6.1.0-990-amd64 nvidia-fabricmanager",
        ),
        (
            "debian",
            Wanted("cuda", "580", fabric_manager=True),
            "open",
            "nvidia-driver-cuda nvidia-kernel-open-dkms nvidia-persistenced "
            "linux-headers-6.1.0-990-amd64 nvidia-fabricmanager",
        ),
        (
            "debian",
            Wanted("cuda", "595"),
            "proprietary",
            "nvidia-driver-cuda nvidia-kernel-dkms nvidia-persistenced "
            "linux-headers-6.1.0-990-amd64",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_names_follow_distribution_channel_branch_and_kind(
    distribution: str, wanted: Wanted, module: str, names: str
) -> None:
    host = Host(distribution, kernels=KERNELS)
    assert driver_names(host, wanted, module) == names.split()


@pytest.mark.parametrize("branch", ["580", "595"])
def test_no_name_is_one_that_brings_a_desktop_or_another_driver(branch: str) -> None:
    for distribution in ("ubuntu", "debian"):
        for channel in ("archive", "cuda") if distribution == "ubuntu" else ("cuda",):
            names = driver_names(Host(distribution), Wanted(channel, branch), "open")
            assert not {"nvidia-open", "cuda-drivers", "cuda"} & set(names)
            assert not any(name.startswith("nvidia-driver-5") for name in names)


def test_dcgm_is_of_the_cuda_that_the_branch_brings() -> None:
    assert dcgm_names("580")[1] == "datacenter-gpu-manager-4-cuda13"
    assert dcgm_names("570")[1] == "datacenter-gpu-manager-4-cuda12"


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-utils-580-server",
        "libnvidia-compute",
        "linux-modules-nvidia-580-server-open-6.8.0-90-generic",
        "cuda-drivers-580",
        "nvidia-fabricmanager-580",
        "nvidia-driver-cuda",
        "libcuda1",
    ],
)
def test_a_drivers_package_is_known_as_one(name: str) -> None:
    assert is_driver(name)


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-container-toolkit",
        "libnvidia-container1",
        "cuda-toolkit-12-9",
        "datacenter-gpu-manager-4-core",
        "nvidia-driver-pinning-580",
        "linux-modules-6.8.0-90-generic",
        "linux-image-generic",
        "nvidia-modprobe",
    ],
)
def test_what_has_versions_of_its_own_is_no_part_of_the_driver(name: str) -> None:
    assert not is_driver(name)


def test_versions_and_names_tell_their_branch() -> None:
    assert upstream("580.178.04-0ubuntu0.24.04.1") == "580.178.04"
    assert branch_of("1:595.91.07-1") == "595"
    assert branch_of("6.8.0-90.91") == ""
    assert branch_of("2026.02.3-1") == ""
    assert branch_in("linux-modules-nvidia-580-server-open-6.8.0-90-generic") == "580"
    assert branch_in("nvidia-driver-cuda") == ""


def test_packages_of_another_branch_or_kind_are_left_over() -> None:
    installed = {
        "nvidia-utils-580-server": "580.178.04-0ubuntu0.24.04.1",
        "linux-modules-nvidia-580-server-6.8.0-90-generic": "6.8.0-90.91",
        "linux-modules-nvidia-595-server-open-6.8.0-90-generic": "6.8.0-90.91",
        "libnvidia-ml1": "595.91.07-1",
        "nvidia-container-toolkit": "1.20.0-1",
    }
    assert leftovers(installed, Wanted("archive", "580"), "open") == [
        "libnvidia-ml1",
        "linux-modules-nvidia-580-server-6.8.0-90-generic",
        "linux-modules-nvidia-595-server-open-6.8.0-90-generic",
    ]


def test_a_plan_names_exact_versions_and_removals_and_files_that_were_kept() -> None:
    plan = Plan.of(
        [Step("Inst", "a", "2", "1"), Step("Inst", "b", "3"), Step("Remv", "c", "", "1")]
    )
    plan.files = {"b": "/kept/b_3_amd64.deb"}
    assert plan.words() == ["a=2", "/kept/b_3_amd64.deb", "c-"]
    assert plan.before == {"a": "1", "c": "1"}


def test_pins_hold_versions_and_keep_out_what_drags_other_drivers_in() -> None:
    text = pins({"b": "580.1-1", "a": "580.1-1", "k": "6.8.0-90.91"})
    assert "Package: a b\nPin: version 580.1-1\nPin-Priority: 1001\n" in text
    assert "Package: k\nPin: version 6.8.0-90.91\n" in text
    assert "Package: cuda cuda-11-* cuda-12-* cuda-13-* datacenter-gpu-manager\n" in text
