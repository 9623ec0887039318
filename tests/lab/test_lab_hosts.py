"""Labs side by side, and what a person does with a host: reboot, cut power, snapshot, reset."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.lab import reconcile, wheelhouse
from ops.lab.fleet_plan import require_plan
from ops.lab.paths import REPOSITORY, LabPaths

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

Run = Callable[..., str]
BOOT = 120.0  # seconds for a host to come back


def lab(*words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "ops.cli.lab", *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == code, f"ops lab {' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def on(name: str, host: str, command: str) -> str:
    return lab("ssh", host, "--name", name, "--", command).strip()


def boot_id(name: str, host: str) -> str:
    return on(name, host, "cat /proc/sys/kernel/random/boot_id")


def wait_for_another_boot(name: str, host: str, before: str) -> None:
    until = time.monotonic() + BOOT
    while time.monotonic() < until:
        try:
            if boot_id(name, host) != before:
                return
        except AssertionError:
            time.sleep(0.3)
    pytest.fail(f"{host} did not come back within {BOOT} s")


@pytest.fixture(scope="module", params=["bookworm", pytest.param("trixie", marks=pytest.mark.long)])
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"hosts-{request.param[:2]}"
    lab("down", "--name", name)
    lab("up", "--hosts", "1", "--image", request.param, "--name", name)
    yield name
    lab("down", "--name", name)


def test_a_host_is_bare_and_whole(name: str) -> None:
    assert on(name, "node1", "systemctl is-system-running --wait") == "running"
    assert on(name, "outside", "systemctl is-system-running --wait") == "running"
    assert "inactive" in lab(
        *("ssh", "node1", "--name", name, "--", "systemctl is-active nginx postgresql; true")
    )
    assert on(name, "node1", "ls /srv/wheelhouse | grep -c '^uv-'") == "1"
    assert "agent.rackhand.test" in on(name, "node1", "getent hosts agent.rackhand.test")


def test_packages_of_the_roles_install_without_the_network(name: str) -> None:
    on(name, "node1", "ip route del default; apt-get install -y -q nginx redis-server libnuma1")
    assert on(name, "node1", "systemctl is-active nginx redis-server") == "active\nactive"
    lab("reset", "node1", "--name", name)
    assert on(name, "node1", "test -e /usr/sbin/nginx || echo bare") == "bare"


def test_real_vllm_imports_in_the_shared_environment(name: str) -> None:
    on(name, "node1", "apt-get install -y -q libnuma1")
    version = on(name, "node1", "/opt/vllm/0.32.0-cpu/bin/vllm --version 2>/dev/null")
    assert version.splitlines()[-1] == "0.32.0+cpu"
    assert on(name, "node1", "touch /opt/vllm/0.32.0-cpu/x 2>/dev/null || echo read-only")


def test_a_reboot_from_inside_and_a_power_cut_come_back(name: str) -> None:
    before = boot_id(name, "node1")
    on(name, "node1", "systemd-run -q --on-active=0.5 systemctl reboot")
    wait_for_another_boot(name, "node1", before)
    before = boot_id(name, "node1")
    lab("kill", "node1", "--name", name)
    wait_for_another_boot(name, "node1", before)


def test_a_snapshot_brings_back_the_files_it_was_taken_of(name: str) -> None:
    on(name, "node1", "echo first > /root/file")
    lab("snapshot", "node1", "before", "--name", name)
    assert on(name, "node1", "cat /root/file") == "first"
    on(name, "node1", "echo second > /root/file; touch /root/other")
    lab("restore", "node1", "before", "--name", name)
    assert on(name, "node1", "cat /root/file; ls /root") == "first\nfile"
    assert "there are: before" in lab("restore", "node1", "x", "--name", name, code=2)


def test_the_certificate_authority_answers_by_its_name(name: str) -> None:
    ca = LabPaths(name).authority / "ca.pem"
    address = require_plan(name).address("outside")
    command = ["curl", "-sS", "--cacert", str(ca), "--retry", "5", "--retry-connrefused"]
    command += ["--resolve", f"acme.rackhand.test:14000:{address}"]
    done = subprocess.run(
        [*command, "https://acme.rackhand.test:14000/dir"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "newOrder" in json.loads(done.stdout), done.stderr


def test_up_again_changes_nothing(name: str) -> None:
    inventory = LabPaths(name).inventory
    files = {path: path.stat().st_mtime_ns for path in inventory.rglob("*.yml")}
    before = boot_id(name, "node1")
    lab("up", "--name", name)
    assert boot_id(name, "node1") == before
    assert {path: path.stat().st_mtime_ns for path in inventory.rglob("*.yml")} == files


def test_up_reboots_a_host_that_sees_outdated_wheels(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = boot_id(name, "node1")
    (tmp_path / "newer").touch()
    monkeypatch.setattr(wheelhouse, "ensure", lambda *_: tmp_path)
    reconcile.up(name, None, None, print)
    assert on(name, "node1", "ls /srv/wheelhouse") == "newer"
    assert boot_id(name, "node1") != before


def test_two_labs_stand_side_by_side(name: str) -> None:
    other = "beside"
    try:
        lab("up", "--hosts", "2", "--name", other)
        assert require_plan(other).subnet != require_plan(name).subnet
        assert len(json.loads(lab("status", "--json", "--name", other))["hosts"]) == 3
        lab("up", "--hosts", "1", "--name", other)
        assert len(json.loads(lab("status", "--json", "--name", other))["hosts"]) == 2
    finally:
        lab("down", "--name", other)
    assert on(name, "node1", "echo still here") == "still here"


def test_the_inventory_is_an_ordinary_one(name: str) -> None:
    ansible = [f"{sys.prefix}/bin/ansible", "-i", str(LabPaths(name).inventory), "all"]
    done = subprocess.run(
        [*ansible, "-m", "ping"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_the_facade_says_that_it_is_ubuntu() -> None:
    facade = "facade"
    try:
        lab("up", "--image", "ubuntu-24.04-facade", "--name", facade)
        assert on(facade, "node1", ". /etc/os-release; echo $ID $VERSION_ID") == "ubuntu 24.04"
        refused = lab("up", "--image", "bookworm", "--name", facade, code=2)
        assert "ops lab down --name facade" in refused
    finally:
        lab("down", "--name", facade)
