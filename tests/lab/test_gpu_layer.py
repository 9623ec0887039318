"""What GPUs need beside a driver: Secure Boot, NVSwitch, MIG, and containers that see them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from gpu_host import GpuHost, fresh
from stack import Lab

pytestmark = pytest.mark.lab

CONF = "/etc/rackhand-simulator/gpus.conf"
PODMAN = "podman run --cgroups=disabled --network=host -v /usr:/usr:ro"
#: What a container inside a container cannot have: overlays over an overlay, and key rings.
PODMAN_HERE = """\
cd /srv && mkdir -p rootfs/usr rootfs/etc rootfs/dev rootfs/proc rootfs/sys rootfs/run rootfs/tmp
for name in bin sbin lib lib64; do ln -sfn usr/$name rootfs/$name; done
cp /etc/ld.so.cache rootfs/etc/
mkdir -p /etc/containers
cat > /etc/containers/storage.conf <<'END'
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
END
printf '[containers]\\nkeyring = false\\n' > /etc/containers/containers.conf
"""

#: A program in a container that goes on asking for the GPUs, and what it saw last.
LOOK = "while :; do nvidia-smi -L > /tmp/new; mv /tmp/new /tmp/seen; sleep 0.1; done"
SEEN = "cd /srv/rootfs/tmp; rm -f seen; timeout 10 sh -c 'until cat seen 2>&-; do :; done'"


@pytest.fixture(scope="module")
def machine(labs: Callable[..., Lab]) -> GpuHost:
    host = fresh(labs(1, "ubuntu-24.04-facade", "H100:2"))
    host.keep("bare")
    assert host.play().status == 0
    host.keep("driven")
    return host


def with_hardware(host: GpuHost, setting: str) -> None:
    """Give the host other firmware or another board: a line of the simulated machine."""
    key = setting.split(" ")[0]
    host.sh(f"sed -i 's/^{key} .*/{setting}/' {CONF}; grep -qx '{setting}' {CONF}")
    host.reboot()


@pytest.mark.long
def test_secure_boot_refuses_what_nobody_signed_and_takes_what_ubuntu_signed(
    machine: GpuHost,
) -> None:
    machine.back_to("bare")
    with_hardware(machine, "secure_boot = yes")
    before = machine.packages
    run = machine.play("-e", "nvidia_driver_channel=cuda")
    assert run.status != 0
    assert "Secure Boot is on" in run.output
    assert "nvidia_driver_channel: archive" in run.output
    assert machine.packages == before
    run = machine.play()
    assert run.status == 0, run.output[-3000:]
    assert machine.loaded == "580.178.04"


@pytest.mark.long
def test_nvswitch_brings_the_fabric_manager_of_the_drivers_version(machine: GpuHost) -> None:
    machine.back_to("driven")
    with_hardware(machine, "nvswitch = yes")
    run = machine.play()
    assert run.status == 0, run.output[-3000:]
    packages = machine.packages
    assert packages["nvidia-fabricmanager-580"] == packages["nvidia-utils-580-server"]
    assert machine.sh("systemctl is-active nvidia-fabricmanager") == "active"
    assert machine.play().total("changed") == 0
    run = machine.play("-e", "nvidia_driver_branch=595", playbook="driver")
    assert run.status == 0, run.output[-3000:]
    assert machine.packages["nvidia-fabricmanager-595"].startswith("595.91.07")
    assert "nvidia-fabricmanager-580" not in machine.packages
    assert machine.sh("systemctl is-active nvidia-fabricmanager") == "active"


def test_containers_see_the_gpus_and_still_do_after_systemd_read_its_files_again(
    machine: GpuHost,
) -> None:
    machine.back_to("driven")
    wanted = ("-e", "container_toolkit_runtime=podman")
    checked = machine.play(*wanted, "--check", tags="container_toolkit")
    assert checked.status == 0, checked.output[-3000:]
    run = machine.play(*wanted, tags="container_toolkit")
    assert run.status == 0, run.output[-3000:]
    assert machine.play(*wanted, tags="container_toolkit").total("changed") == 0
    machine.sh(PODMAN_HERE)
    blind, said = machine.attempt(f"{PODMAN} --rm --rootfs /srv/rootfs nvidia-smi -L")
    assert not blind, "no device was asked for"
    assert "NVIDIA driver" in said
    gpus = "--detach --name c --device nvidia.com/gpu=all"
    machine.sh(f"{PODMAN} {gpus} --rootfs /srv/rootfs sh -c '{LOOK}'")
    assert machine.sh(SEEN).count("H100") == 2
    machine.sh("systemctl daemon-reload")
    assert machine.sh(SEEN).count("H100") == 2
    machine.sh("podman rm -f -t 0 c")


MIG = {
    "nvidia_driver_mig": [{"gpu": 0, "profiles": ["3g.40gb", "1g.10gb"]}],
    "container_toolkit_runtime": "podman",
    "container_toolkit_runtime_packages": [],
}


@pytest.mark.long
def test_a_gpu_is_cut_into_partitions_that_outlive_a_reboot_and_that_containers_hear_of(
    machine: GpuHost,
) -> None:
    machine.back_to("driven")
    toolkit = {**MIG, "nvidia_driver_mig": []}
    run = machine.play("-e", json.dumps(toolkit), tags="container_toolkit")
    assert run.status == 0, run.output[-3000:]
    run = machine.play("-e", json.dumps(MIG))
    assert run.status == 0, run.output[-3000:]
    assert machine.play("-e", json.dumps(MIG)).total("changed") == 0
    listed = machine.sh("nvidia-smi -L")
    assert listed.count("MIG 3g.40gb") == 1
    assert listed.count("MIG 1g.10gb") == 1
    machine.sh("timeout 10 sh -c 'until nvidia-ctk cdi list 2>&1 | grep -q gpu=0:1; do :; done'")
    machine.reboot()
    assert machine.sh("systemctl is-active gpu-partitions") == "active"
    assert machine.sh("nvidia-smi -L").count("MIG 3g.40gb") == 1
