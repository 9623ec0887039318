"""A simulated GPU machine behaves as metal does: kernels, modules, nouveau, Secure Boot, apt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_lab_hosts import boot_id, lab, on, wait_for_another_boot

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NAME = "machine"
RESTRICTED = """\
Types: deb
URIs: http://mirror.rackhand.test/current/ubuntu
Suites: noble noble-updates noble-security
Components: restricted
Signed-By: /usr/share/keyrings/rackhand-ubuntu-archive.gpg
"""
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o Dpkg::Use-Pty=0"
OPEN_580 = "nvidia-headless-no-dkms-580-server-open nvidia-utils-580-server"
MODULES_580 = "linux-modules-nvidia-580-server-open"


def run(command: str) -> str:
    return on(NAME, "node1", command)


def failing(command: str) -> str:
    """What a command says that must fail."""
    said = run(f"if {command}; then echo UNEXPECTED SUCCESS; fi 2>&1")
    assert "UNEXPECTED SUCCESS" not in said, said
    return said


def reboot() -> None:
    before = boot_id(NAME, "node1")
    run("systemd-run -q --on-active=0.2 systemctl reboot")
    wait_for_another_boot(NAME, "node1", before)


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """A facade host with two GPUs that sees the archive's drivers, as its administrator added."""
    lab("down", "--name", NAME)
    lab("up", "--image", "ubuntu-24.04-facade", "--gpu", "H100:2", "--name", NAME)
    run(f"printf '%s' '{RESTRICTED}' > /etc/apt/sources.list.d/restricted.sources")
    run("apt-get update -q")
    yield
    lab("down", "--name", NAME)


def test_it_shows_its_own_kernel_and_hardware_and_no_driver() -> None:
    assert run("systemctl is-system-running --wait") == "running"
    assert run("uname -r") == "6.8.0-90-generic"
    assert run("python3 -c 'import platform; print(platform.release())'") == "6.8.0-90-generic"
    assert run("cat /sys/bus/pci/devices/*/vendor") == "0x10de\n0x10de"
    assert run("cat /sys/bus/pci/devices/*/class") == "0x030200\n0x030200"
    assert run("ls /sys/module") == "nouveau"
    assert run("test -e /proc/driver/nvidia || echo none") == "none"
    assert run("systemctl is-active simulated-machine") == "active"


def test_a_driver_of_the_archive_loads_once_nouveau_is_out_of_the_initramfs() -> None:
    run(f"{INSTALL} --no-install-recommends {OPEN_580} {MODULES_580}-$(uname -r)")
    assert run("modinfo -F version nvidia") == "580.178.04"
    assert run("modinfo -F license nvidia") == "Dual MIT/GPL"
    assert "No such device" in failing("modprobe nvidia")
    run("printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' > /etc/modprobe.d/nouveau.conf")
    reboot()
    assert run("ls /sys/module") == "nouveau"  # the initramfs does not know yet
    run("update-initramfs -u")
    reboot()
    assert run("ls /sys/module") == "nvidia"
    assert "Open Kernel Module for x86_64  580.178.04" in run("cat /proc/driver/nvidia/version")
    assert len(run("nvidia-smi -L").splitlines()) == 2
    assert run("systemctl is-active nvidia-persistenced") == "active"


def test_a_new_library_beside_the_loaded_module_is_a_mismatch_until_the_reboot() -> None:
    lab("snapshot", "node1", "driven", "--name", NAME)
    new = OPEN_580.replace("580", "595")
    run(f"{INSTALL} --no-install-recommends {new} linux-modules-nvidia-595-server-open-$(uname -r)")
    assert "Driver/library version mismatch" in failing("nvidia-smi")
    assert "580.178.04" in run("cat /proc/driver/nvidia/version")
    reboot()
    assert "595.91.07" in run("cat /proc/driver/nvidia/version")
    assert run("nvidia-smi --query-gpu=driver_version --format=csv,noheader -i 0") == "595.91.07"


def test_a_kernel_update_without_its_modules_breaks_the_driver_at_the_next_boot() -> None:
    lab("restore", "node1", "driven", "--name", NAME)
    run(f"{INSTALL} linux-image-generic")
    assert run("nvidia-smi -L")
    reboot()
    assert run("uname -r") == "6.8.0-94-generic"
    assert "couldn't communicate with the NVIDIA driver" in failing("nvidia-smi")
    assert "not found in directory /lib/modules/6.8.0-94-generic" in failing("modprobe nvidia")
    run(f"{INSTALL} {MODULES_580}-$(uname -r); modprobe nvidia")
    assert run("nvidia-smi -L")


def test_secure_boot_takes_the_signed_module_and_refuses_the_one_of_dkms() -> None:
    lab("restore", "node1", "driven", "--name", NAME)
    run("sed -i 's/^secure_boot.*/secure_boot = yes/' /etc/rackhand-simulator/gpus.conf")
    reboot()
    variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    assert run(f"od -An -t u1 {variable}").split()[4] == "1"
    assert run("ls /sys/module") == "nvidia"
    run(f"apt-get purge -y -q {MODULES_580}-$(uname -r)")
    run(f"{INSTALL} --no-install-recommends linux-headers-$(uname -r)")
    run(f"{INSTALL} --no-install-recommends nvidia-headless-580-server-open")
    assert "6.8.0-90-generic, x86_64: installed" in run("dkms status")
    run("systemctl stop nvidia-persistenced; modprobe -r nvidia")
    assert "Key was rejected by service" in failing("modprobe nvidia")
    run("sed -i 's/^secure_boot.*/secure_boot = no/' /etc/rackhand-simulator/gpus.conf")
    run("modprobe nvidia")
    assert run("nvidia-smi -L")


def test_the_container_toolkit_writes_its_cdi_file_by_itself() -> None:
    lab("restore", "node1", "driven", "--name", NAME)
    key = "/usr/share/keyrings/container.asc"
    base = "http://mirror.rackhand.test/current"
    run(f"curl -sSf {base}/keys/container.asc -o {key}")
    source = f"deb [signed-by={key}] {base}/libnvidia-container/stable/deb/amd64/ /"
    run(f"echo '{source}' > /etc/apt/sources.list.d/container.list; apt-get update -q")
    run(f"{INSTALL} nvidia-container-toolkit")
    devices = run("nvidia-ctk cdi list 2>/dev/null").splitlines()
    assert {"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"} <= set(devices)
    run("rm /var/run/cdi/nvidia.yaml; touch /lib/modules/$(uname -r)/modules.dep")
    run("for _ in $(seq 50); do test -e /var/run/cdi/nvidia.yaml && break; sleep 0.1; done")
    assert run("nvidia-ctk cdi list 2>/dev/null").splitlines() == devices


def test_dkms_builds_nothing_without_headers_and_says_so() -> None:
    lab("reset", "node1", "--name", NAME)
    run(f"printf '%s' '{RESTRICTED}' > /etc/apt/sources.list.d/restricted.sources")
    run("apt-get update -q")
    said = run(f"{INSTALL} --no-install-recommends nvidia-headless-580-server-open 2>&1")
    assert "Your kernel headers for kernel 6.8.0-90-generic cannot be found" in said
    assert run("dkms status") == ""
    run(f"{INSTALL} --no-install-recommends linux-headers-$(uname -r)")
    assert "6.8.0-90-generic, x86_64: installed" in run("dkms status")


def test_the_mirror_moves_in_time_and_fails_as_mirrors_do() -> None:
    fetch = f"{INSTALL} --reinstall --download-only -o Acquire::Retries=0"
    assert lab("mirror", "show", "--name", NAME).strip() == "2026-11"
    lab("mirror", "use", "mid-sync", "--name", NAME)
    wanted = "libnvidia-compute-580-server"
    run("rm -f /var/cache/apt/archives/libnvidia-compute-*")
    assert "unexpected size" in failing(f"{fetch} {wanted}")
    lab("mirror", "use", "2026-11", "--name", NAME)
    run(f"{fetch} {wanted}")
    run("rm -rf /var/lib/apt/lists/mirror*")
    lab("mirror", "use", "gone", "--name", NAME)
    run("apt-get update -q")
    assert "404" in failing(f"{fetch} --allow-downgrades {wanted}=580.126.09-0ubuntu0.24.04.1")
    lab("mirror", "use", "2026-11", "--name", NAME)
    assert "use one of 2026-06" in lab("mirror", "use", "1999", "--name", NAME, code=2)
