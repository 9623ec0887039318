"""What is refused before anything changes, and the cure that comes with it."""

from __future__ import annotations

import pytest
from ansible_collections.rackhand.host.plugins.module_utils.driver_judgement import (
    choose_module,
    choose_version,
    judge_request,
    judge_steps,
    uncovered_kernels,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Host,
    Refusal,
    Step,
    Wanted,
)
from ansible_collections.rackhand.host.plugins.module_utils.gpu_hardware import architecture_of

V100, T4, A100, A10, H100, GH200, L4, B200, RTX_5090 = (
    "0x1db4", "0x1eb8", "0x20b2", "0x2236", "0x2330", "0x2342", "0x27b8", "0x2901", "0x2b85",
)  # fmt: skip


@pytest.mark.parametrize(
    ("device", "architecture"),
    [
        ("0x118f", "older"),  # K10
        ("0x13f2", "maxwell"),  # M60
        ("0x17fd", "maxwell"),  # M40
        ("0x15f8", "pascal"),  # P100
        ("0x1b38", "pascal"),  # P40
        (V100, "volta"),
        (T4, "turing"),
        ("0x2182", "turing"),  # GTX 1660 Ti
        (A100, "ampere"),
        (A10, "ampere"),
        ("0x25b6", "ampere"),  # A16
        (H100, "hopper"),
        ("0x2335", "hopper"),  # H200
        (GH200, "grace_hopper"),
        (L4, "ada"),
        ("0x26b9", "ada"),  # L40S
        (B200, "blackwell"),
        (RTX_5090, "blackwell"),
        ("0x3182", "blackwell"),  # B300
    ],
)
def test_a_device_id_tells_its_architecture(device: str, architecture: str) -> None:
    assert architecture_of(device) == architecture


@pytest.mark.parametrize(
    ("branch", "devices", "module"),
    [
        ("580", [V100], "proprietary"),
        ("580", [T4], "open"),
        ("580", [A100, H100], "open"),
        ("580", [GH200], "open"),
        ("595", [B200], "open"),
        ("470", [A100], "proprietary"),
    ],
)
def test_auto_takes_the_modules_that_gpus_and_branch_take(
    branch: str, devices: list[str], module: str
) -> None:
    assert choose_module(Wanted("archive", branch), devices) == module


@pytest.mark.parametrize(
    ("wanted", "devices", "message"),
    [
        (Wanted("archive", "580", module="open"), [V100], "volta GPUs do not take the open"),
        (Wanted("archive", "580", module="proprietary"), [B200], "blackwell GPUs take the open"),
        (Wanted("archive", "580", module="proprietary"), [GH200], "grace_hopper GPUs take"),
        (Wanted("archive", "595"), [V100], "no longer knows volta"),
        (Wanted("archive", "535"), [B200], "does not know Blackwell"),
        (Wanted("archive", "580"), [V100, B200], "no driver serves all GPUs"),
        (Wanted("archive", "470", module="open"), [A100], "branch 470 does not take"),
    ],
)
def test_modules_that_the_gpus_cannot_load_are_refused(
    wanted: Wanted, devices: list[str], message: str
) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        choose_module(wanted, devices)
    assert refused.value.cure


def test_dkms_under_secure_boot_is_refused_with_the_ways_out() -> None:
    with pytest.raises(Refusal, match="Secure Boot is on") as refused:
        judge_request(Host("ubuntu", secure_boot=True), Wanted("cuda", "580"))
    assert "nvidia_driver_channel: archive" in refused.value.cure
    assert "mokutil --import" in refused.value.cure
    with pytest.raises(Refusal) as refused:
        judge_request(Host("debian", secure_boot=True), Wanted("cuda", "580"))
    assert "archive" not in refused.value.cure


def test_signed_modules_and_an_enrolled_key_pass_secure_boot() -> None:
    judge_request(Host("ubuntu", secure_boot=True), Wanted("archive", "580"))
    judge_request(Host("debian", secure_boot=True, key_enrolled=True), Wanted("cuda", "580"))


@pytest.mark.parametrize(
    ("host", "wanted", "message"),
    [
        (Host("debian"), Wanted("archive", "580"), "channel archive is Ubuntu's"),
        (Host("ubuntu"), Wanted("archive", "latest"), "'latest' is no branch"),
        (Host("ubuntu"), Wanted("archive", "580", version="595.91.07"), "not of branch 580"),
        (Host("ubuntu"), Wanted("archive", "580", extra=["cuda"]), "drags a driver in"),
        (Host("ubuntu"), Wanted("archive", "580", extra=["cuda-12-9"]), "drags a driver in"),
        (
            Host("ubuntu"),
            Wanted("archive", "580", extra=["datacenter-gpu-manager"]),
            "replaces DCGM 4 by version 3",
        ),
    ],
)
def test_a_request_that_cannot_be_right_is_refused(
    host: Host, wanted: Wanted, message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        judge_request(host, wanted)


def test_a_toolkit_is_no_trap() -> None:
    judge_request(Host("ubuntu"), Wanted("archive", "580", extra=["cuda-toolkit-12-9"]))


def test_the_newest_of_the_branch_is_chosen_unless_a_version_is_named() -> None:
    offered = ["595.91.07-1", "580.178.04-1", "580.126.09-1"]
    assert choose_version(Wanted("cuda", "580"), "x", offered, ["580"]) == "580.178.04-1"
    named = Wanted("cuda", "580", version="580.126.09")
    assert choose_version(named, "x", offered, ["580"]) == "580.126.09-1"


def test_a_stub_is_named_with_the_branch_at_which_it_ends() -> None:
    with pytest.raises(Refusal, match=r"branch 550 is no more: .* installs branch 580") as refused:
        choose_version(
            Wanted("archive", "550"), "x", ["570.211.01-1"], ["580", "595"], leads_to="580"
        )
    assert 'nvidia_driver_branch: "580"' in refused.value.cure
    assert "580, 595" in refused.value.cure


def test_an_unknown_branch_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(Refusal, match="no repository of this host has x") as refused:
        choose_version(Wanted("archive", "999"), "x", [], ["595", "580"])
    assert "580, 595" in refused.value.cure


def test_a_version_that_the_mirror_forgot_is_answered_with_those_that_it_has() -> None:
    wanted = Wanted("archive", "580", version="580.126.09")
    with pytest.raises(Refusal, match=r"no longer offered; the index has 580.178.04"):
        choose_version(wanted, "x", ["580.178.04-1"], ["580"])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            Step("Inst", "nvidia-utils-595-server", "595.91.07-1"),
            "move this host to branch 595",
        ),
        (Step("Inst", "libnvidia-ml1", "595.91.07-1"), "move this host to branch 595"),
        (
            Step("Inst", "linux-modules-nvidia-580-server-6.8.0-90-generic", "6.8.0-90.91"),
            "has no open modules here",
        ),
        (Step("Inst", "dkms", "3.2-1"), "would bring DKMS"),
        (Step("Remv", "postgresql-16", "", "16.1"), "would remove postgresql-16"),
    ],
)
def test_a_transaction_that_would_do_something_else_is_refused(step: Step, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        judge_steps([step], Wanted("archive", "580"), "open")


def test_the_transaction_that_was_asked_for_passes() -> None:
    steps = [
        Step("Inst", "nvidia-utils-580-server", "580.178.04-0ubuntu0.24.04.1"),
        Step("Inst", "linux-modules-nvidia-580-server-open-6.8.0-94-generic", "6.8.0-94.96+1"),
        Step("Inst", "linux-image-6.8.0-94-generic", "6.8.0-94.96"),
        Step("Remv", "nvidia-utils-570-server", "", "570.1-1"),
    ]
    judge_steps(steps, Wanted("archive", "580"), "open")


def test_kernels_newer_than_every_signed_module_are_named() -> None:
    kernels = ["6.8.0-90-generic", "6.8.0-94-generic"]
    modules = ["linux-modules-nvidia-580-server-open-6.8.0-90-generic"]
    assert uncovered_kernels(kernels, modules, Wanted("archive", "580")) == ["6.8.0-94-generic"]
    assert uncovered_kernels(kernels[:1], modules, Wanted("archive", "580")) == []
    assert uncovered_kernels(kernels, [], Wanted("archive", "580")) == kernels
    assert uncovered_kernels(kernels, [], Wanted("cuda", "580")) == []
