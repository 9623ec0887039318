"""What role hardening lays down, judged by the programs that read it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rendering import BOOKWORM, JAMMY, TRIXIE, Role

from ops.verify.firewall import Opening, openings_in_force

FLEET = ["10.0.0.1", "10.0.0.2", "fd00::1"]
NFT = "host/etc/nftables.d/rackhand.nft.j2"
needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="no nft here")


def rules(**variables: Any) -> str:
    return Role("hardening", BOOKWORM, **variables).render(NFT)


def in_a_namespace(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Load the rules in a network of their own, twice, and list them."""
    path = tmp_path / "rules.nft"
    path.write_text(text)
    load = f"nft -c -f {path} && nft -f {path} && nft -f {path} && nft -j list table inet rackhand"
    return subprocess.run(["unshare", "-n", "sh", "-c", load], capture_output=True, text=True)


@needs_nft
def test_the_rules_load_again_and_open_what_they_are_told(tmp_path: Path) -> None:
    text = rules(
        hardening_ssh_ports=[22, 2222],
        hardening_firewall_world_ports=[80, 443],
        hardening_firewall_fleet_addresses=FLEET,
        hardening_firewall_fleet_ports=[5432],
        hardening_firewall_openings=[
            {"port": "9000-9010"},
            {"port": 5353, "proto": "udp", "from": ["10.1.0.0/16", "fd01::/64"]},
        ],
    )
    done = in_a_namespace(text, tmp_path)
    if "Operation not permitted" in done.stderr:
        pytest.skip("no network namespace may be made here")
    assert done.returncode == 0, done.stderr
    assert openings_in_force(done.stdout) == {
        *(Opening("tcp", str(port)) for port in (22, 2222, 80, 443)),
        Opening("tcp", "9000-9010"),
        Opening("udp", "5353", ("10.1.0.0/16",)),
        Opening("udp", "5353", ("fd01::/64",)),
        Opening("tcp", "5432", ("10.0.0.1", "10.0.0.2")),
        Opening("tcp", "5432", ("fd00::1",)),
    }


@needs_nft
def test_a_list_of_who_may_reach_sshd_keeps_the_fleet_in(tmp_path: Path) -> None:
    text = rules(
        hardening_ssh_from=["198.51.100.0/24"], hardening_firewall_fleet_addresses=FLEET[:2]
    )
    done = in_a_namespace(text, tmp_path)
    if "Operation not permitted" in done.stderr:
        pytest.skip("no network namespace may be made here")
    assert done.returncode == 0, done.stderr
    assert openings_in_force(done.stdout) == {
        Opening("tcp", "22", ("198.51.100.0/24",)),
        Opening("tcp", "22", ("10.0.0.1", "10.0.0.2")),
    }


def test_no_table_but_our_own_is_touched() -> None:
    text = rules()
    assert "flush" not in text
    assert text.count("delete table") == 1
    assert "hook forward" not in text


def test_sshd_is_asked_only_for_what_it_knows() -> None:
    texts = [
        Role("hardening", facts).render("host/etc/ssh/sshd_config.d/00-rackhand.conf.j2")
        for facts in (BOOKWORM, TRIXIE, JAMMY)
    ]
    assert ["mlkem" in text for text in texts] == [False, True, False]
    assert all("AllowTcpForwarding local" in text for text in texts), "ops forwards"
    assert all("MaxSessions 10" in text for text in texts), "ops multiplexes"


@pytest.mark.parametrize("facts", [BOOKWORM, JAMMY], ids=["Debian", "Ubuntu"])
def test_updates_are_security_fixes_without_the_gpu_stack(facts: dict[str, str]) -> None:
    role = Role("hardening", facts, hardening_upgrades_keep_kernel=True)
    text = role.render("host/etc/apt/apt.conf.d/60rackhand-unattended-upgrades.j2")
    origins = [line.strip() for line in text.splitlines() if '"origin=' in line]
    assert origins
    assert all("ecurity" in line for line in origins)
    assert f"origin={facts['distribution']}," in text
    assert '"nvidia-";' in text
    assert "linux-(generic" in text
    assert 'Automatic-Reboot "false"' in text


def test_the_gpu_driver_is_never_kept_out() -> None:
    names = Role("hardening", BOOKWORM).value("hardening_modules_off")
    assert not [name for name in names if "nvidia" in name or name in ("squashfs", "overlay")]


def test_a_container_gets_the_settings_of_its_network_alone() -> None:
    facts = {
        **BOOKWORM,
        "virtualization_type": "systemd-nspawn",
        "virtualization_role": "guest",
    }
    inside = Role("hardening", facts).render("host/etc/sysctl.d/61-rackhand-hardening.conf.j2")
    metal = Role("hardening", BOOKWORM).render("host/etc/sysctl.d/61-rackhand-hardening.conf.j2")
    assert "kernel." not in inside
    assert "This host is a container" in inside
    assert "kernel.kptr_restrict = 2" in metal


def test_the_fleet_and_whom_the_inventory_names_are_never_banned() -> None:
    role = Role(
        "hardening",
        BOOKWORM,
        hardening_firewall_fleet_addresses=FLEET,
        hardening_fail2ban_ignore=["192.0.2.9"],
        hardening_fail2ban_edge_enabled=True,
    )
    text = role.render("host/etc/fail2ban/jail.d/60-rackhand.conf.j2")
    ignored = next(line for line in text.splitlines() if line.startswith("ignoreip"))
    assert set(ignored.split()[2:]) == {*FLEET, "192.0.2.9", "127.0.0.0/8", "::1"}


def test_openings_are_read_through_jumps_and_sets() -> None:
    listed = {
        "nftables": [
            {"rule": {"chain": "input", "expr": [_saddr("10.0.0.1"), {"jump": {"target": "f"}}]}},
            {"rule": {"chain": "f", "expr": [_dport({"set": [1, 2]}), {"accept": None}]}},
            {"rule": {"chain": "f", "expr": [_dport(3), {"drop": None}]}},
        ]
    }
    found = openings_in_force(json.dumps(listed))
    assert found == {Opening("tcp", "1", ("10.0.0.1",)), Opening("tcp", "2", ("10.0.0.1",))}


def _saddr(right: Any) -> dict[str, Any]:
    return {"match": {"left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": right}}


def _dport(right: Any) -> dict[str, Any]:
    return {"match": {"left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": right}}
