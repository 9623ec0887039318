"""What users of GPU servers complain about, first as it bites, then as the roles prevent it.

Each test begins on a host from a snapshot: bare, or with the driver that the role installed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest
from gpu_host import GpuHost, fresh
from stack import Lab

pytestmark = pytest.mark.lab

STACK = "nvidia-headless-no-dkms-580-server-open nvidia-utils-580-server"
MODULES = "linux-modules-nvidia-580-server-open"
CUDA = "http://mirror.rackhand.test/current/cuda/ubuntu2404/x86_64"


@pytest.fixture(scope="module")
def machine(labs: Callable[..., Lab]) -> Iterator[GpuHost]:
    """A host and its snapshot as it came."""
    host = fresh(labs(1, "ubuntu-24.04-facade", "H100:2"))
    host.keep("bare")
    yield host
    host.mirror("2026-11")


@pytest.fixture
def bare(machine: GpuHost) -> GpuHost:
    machine.mirror("2026-11")
    machine.back_to("bare")
    machine.reach_restricted()
    return machine


@pytest.fixture(scope="module")
def snapshot_with_driver(machine: GpuHost) -> str:
    """A snapshot with the role's driver."""
    machine.mirror("2026-11")
    machine.back_to("bare")
    assert machine.play().status == 0
    machine.keep("driven")
    return "driven"


@pytest.fixture
def driven(machine: GpuHost, snapshot_with_driver: str) -> GpuHost:
    machine.mirror("2026-11")
    machine.back_to(snapshot_with_driver)
    return machine


def test_a_stub_does_not_move_the_branch(bare: GpuHost) -> None:
    done, said = bare.apt("install nvidia-headless-no-dkms-550-server-open")
    assert done, said
    assert bare.branches() == {"580"}, "plain apt was asked for 550 and says nothing"

    bare.back_to("bare")
    before = bare.packages
    run = bare.play("-e", "nvidia_driver_branch=550")
    assert run.status != 0
    assert "branch 550 is no more" in run.output
    assert "installs branch 580" in run.output
    assert bare.packages == before


@pytest.mark.long
def test_the_bare_dcgm_name_does_not_take_dcgm_4_away(bare: GpuHost) -> None:
    trusted = f"deb [trusted=yes] {CUDA}/ /"
    bare.sh(f"echo '{trusted}' > /etc/apt/sources.list.d/person-cuda.list; apt-get update")
    assert bare.apt("install datacenter-gpu-manager-4-core")[0]
    done, said = bare.apt("install datacenter-gpu-manager")
    assert done, said
    assert "datacenter-gpu-manager-4-core" not in bare.packages
    assert bare.packages["datacenter-gpu-manager"].startswith("1:3.3.9")

    run = bare.play("-e", '{"nvidia_driver_dcgm": true}')
    assert run.status == 0, run.output[-3000:]
    assert bare.packages["datacenter-gpu-manager-4-core"].startswith("1:4.5.2")
    assert "datacenter-gpu-manager" not in bare.packages
    assert bare.sh("systemctl is-active nvidia-dcgm") == "active"
    bare.apt("install datacenter-gpu-manager")
    assert bare.packages["datacenter-gpu-manager-4-core"].startswith("1:4.5.2")
    refused = bare.play("-e", '{"nvidia_driver_extra_packages": ["datacenter-gpu-manager"]}')
    assert refused.status != 0
    assert "replaces DCGM 4 by version 3" in refused.output


@pytest.mark.long
def test_a_second_key_for_one_repository_does_not_stop_apt(bare: GpuHost) -> None:
    keyring = "cuda-keyring_1.1-1_amd64.deb"
    bare.sh(
        "python3 -c 'import urllib.request as u; "
        f'u.urlretrieve("{CUDA}/{keyring}", "/tmp/{keyring}")\' && dpkg -i /tmp/{keyring}'
    )
    assert bare.apt("update")[0]
    ours = f"Types: deb\nURIs: {CUDA}/\nSuites: /\nSigned-By: /etc/apt/keyrings/other.gpg\n"
    bare.sh(
        "cp /usr/share/keyrings/cuda-archive-keyring.gpg /etc/apt/keyrings/other.gpg; "
        f"printf '{ours}' > /etc/apt/sources.list.d/person-cuda.sources"
    )
    done, said = bare.apt("update")
    assert not done
    assert "Conflicting values set for option Signed-By" in said

    bare.sh("rm /etc/apt/sources.list.d/person-cuda.sources")
    run = bare.play("-e", "cuda_toolkit_version=12-9", tags="nvidia_driver,cuda")
    assert run.status == 0, run.output[-3000:]
    assert bare.apt("update")[0]
    assert bare.sh("bash -lc 'nvcc --version'")
    assert bare.sh("readlink -f /usr/local/cuda") == "/usr/local/cuda-12.9"
    assert bare.branches() == {"580"}
    again = bare.play("-e", "cuda_toolkit_version=12-9", tags="nvidia_driver,cuda")
    assert again.total("changed") == 0, again.output[-3000:]


@pytest.mark.long
def test_a_rerun_with_another_pin_is_a_move_and_no_failure(bare: GpuHost) -> None:
    trusted = f"deb [trusted=yes] {CUDA}/ /"
    bare.sh(f"echo '{trusted}' > /etc/apt/sources.list.d/person-cuda.list; apt-get update")
    for branch in ("595", "590"):
        assert bare.apt(f"install nvidia-driver-pinning-{branch}")[0]
        bare.apt("install libnvidia-compute nvidia-utils")
    assert bare.branches() == {"595"}, "the first pin's file outlives its package"

    for changed in (True, False):
        run = bare.play("-e", "nvidia_driver_channel=cuda", "-e", "nvidia_driver_branch=590")
        assert run.status == 0, run.output[-3000:]
        assert (run.total("changed") > 0) is changed
    assert bare.loaded == "590.48.01"


@pytest.mark.long
def test_held_packages_do_not_break_a_move(bare: GpuHost) -> None:
    assert bare.apt(f"install {STACK} {MODULES}-generic")[0]
    bare.sh("dpkg -l '*nvidia*' | awk '/^ii/ {print $2}' | xargs apt-mark hold")
    new = f"{STACK} {MODULES}-generic".replace("580", "595")
    done, said = bare.apt(f"install {new}")
    assert not done
    assert "held" in said, said

    run = bare.play("-e", "nvidia_driver_branch=595", playbook="driver")
    assert run.status == 0, run.output[-3000:]
    assert bare.loaded == "595.91.07"
    assert bare.sh("apt-mark showhold") == ""


@pytest.mark.long
def test_a_mirror_in_mid_sync_is_waited_for(bare: GpuHost) -> None:
    bare.mirror("mid-sync")
    bare.sh("apt-get update")
    done, said = bare.apt(f"install {STACK} {MODULES}-generic")
    assert not done
    assert "unexpected size" in said or "Hash Sum mismatch" in said, said
    before = bare.packages

    run = bare.play("-e", "nvidia_driver_mirror_patience_s=1")
    assert run.status != 0
    assert "in mid-sync: run again later" in run.output
    assert bare.packages == before, "nothing was half installed"

    timer = threading.Timer(8, lambda: bare.mirror("2026-11"))
    timer.start()
    run = bare.play()
    timer.join()
    assert run.status == 0, run.output[-3000:]
    assert bare.loaded == "580.178.04"


def test_a_version_that_the_mirror_forgot_is_named_before_anything_changes(bare: GpuHost) -> None:
    done, said = bare.apt("install nvidia-utils-580-server=580.126.09-0ubuntu0.24.04.1")
    assert not done
    assert "was not found" in said
    run = bare.play("-e", "nvidia_driver_version=580.126.09")
    assert run.status != 0
    assert "580.126.09 is no longer offered; the index has 580.178.04" in run.output


DOCKER = """\
[Service]
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'echo reloaded >> /run/docker-heard'
ExecStop=/bin/sh -c 'echo stopped >> /run/docker-heard'
"""
THEIRS = {"log-driver": "journald", "features": {"buildkit": True}}


@pytest.mark.long
def test_daemon_json_keeps_what_others_wrote(driven: GpuHost) -> None:
    def lay_down_theirs() -> None:
        text = json.dumps(THEIRS)
        driven.sh(f"mkdir -p /etc/docker; echo '{text}' > /etc/docker/daemon.json")

    unit = "/etc/systemd/system/docker.service"
    driven.sh(f"cat > {unit} <<'END'\n{DOCKER}END\nsystemctl daemon-reload; systemctl start docker")
    lay_down_theirs()
    # As an instruction on the web has it: the whole file, with the one key that it is about.
    driven.sh(
        """echo '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}' """
        "> /etc/docker/daemon.json"
    )
    assert "log-driver" not in driven.sh("cat /etc/docker/daemon.json")

    lay_down_theirs()
    wanted = '{"container_toolkit_runtime": "docker", "container_toolkit_runtime_packages": []}'
    checked = driven.play("-e", wanted, "--check", "--diff", tags="container_toolkit")
    assert checked.status == 0, checked.output[-3000:]
    assert json.loads(driven.sh("cat /etc/docker/daemon.json")) == THEIRS
    run = driven.play("-e", wanted, tags="container_toolkit")
    assert run.status == 0, run.output[-3000:]
    config = json.loads(driven.sh("cat /etc/docker/daemon.json"))
    assert config["log-driver"] == "journald"
    assert config["features"] == {"buildkit": True, "cdi": True}
    assert "nvidia" in config["runtimes"]
    assert driven.sh("cat /run/docker-heard") == "reloaded", "no container ends for it"
    versions = {v for n, v in driven.packages.items() if "nvidia-container" in n}
    assert versions == {"1.20.0-1"}
    again = driven.play("-e", wanted, "--diff", tags="container_toolkit")
    assert again.total("changed") == 0, again.output[-3000:]


def test_a_kernel_update_does_not_take_the_driver_away(
    bare: GpuHost, request: pytest.FixtureRequest
) -> None:
    assert bare.apt(f"install {STACK} {MODULES}-$(uname -r)")[0]
    bare.sh("echo blacklist nouveau > /etc/modprobe.d/person.conf; update-initramfs -u")
    assert bare.apt("dist-upgrade")[0]
    bare.reboot()
    assert bare.sh("uname -r") == "6.8.0-94-generic"
    assert not bare.attempt("nvidia-smi")[0], "the new kernel has no driver"

    bare.back_to(request.getfixturevalue("snapshot_with_driver"))
    assert bare.apt("update")[0]
    assert bare.apt("dist-upgrade")[0]
    bare.reboot()
    assert bare.sh("uname -r") == "6.8.0-90-generic"
    assert bare.attempt("nvidia-smi")[0]


@pytest.mark.long
def test_a_kernel_that_a_person_installed_gets_its_driver_before_it_boots(driven: GpuHost) -> None:
    assert driven.apt("install linux-image-6.8.0-94-generic")[0]
    run = driven.play()
    assert run.status == 0, run.output[-3000:]
    assert f"{MODULES}-6.8.0-94-generic" in driven.packages
    driven.reboot()
    assert driven.sh("uname -r") == "6.8.0-94-generic"
    assert driven.attempt("nvidia-smi")[0]
    assert driven.play().total("changed") == 0
