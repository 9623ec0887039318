"""Which sockets of a host may be open beyond its loopback."""

import json
import os
import re
import subprocess
from pathlib import Path

from ops.fleet import load
from ops.fleet.model import Fleet, Host, Model
from ops.places import ROOT
from ops.verify.checks.test_base import allowed_listeners
from ops.verify.ports import fleet_ports, world_ports

DEMO = Model("demo", "hf://x/demo", "r1", 0)
GROUPS = {"front": "edge agent", "gpu1": "gpu", "data1": "data", "watch1": "monitoring"}


def fleet(*names: str) -> Fleet:
    hosts = [
        Host(name, "", frozenset(GROUPS[name].split()), f"10.0.0.{number}", (DEMO,))
        for number, name in enumerate(names, 1)
    ]
    return Fleet(Path("inventories/x"), "agent.example.com", tuple(hosts))


def ports(whole: Fleet, name: str) -> set[int]:
    host = whole.host(name)
    return {port for address, port in allowed_listeners(whole, host) if address != "0.0.0.0"}


def test_exporters_listen_on_the_private_address_of_a_fleet_that_is_watched() -> None:
    whole = fleet("front", "gpu1", "data1", "watch1")
    assert ports(whole, "front") == {8200, 8201, 8300, 8301, 9100, 9113}
    assert ports(whole, "gpu1") == {8000, 8501, 9100, 9113, 9835}
    assert ports(whole, "data1") == {5432, 6379, 6380, 8432, 9100, 9121, 9187}
    assert ports(whole, "watch1") == {8432, 9100}


def test_without_a_monitoring_host_no_exporter_may_be_there() -> None:
    whole = fleet("front", "gpu1", "data1")
    assert ports(whole, "front") == {8200, 8201, 8300, 8301}
    assert ports(whole, "data1") == {5432, 6379, 6380, 8432}


def test_the_playbooks_open_the_ports_that_verify_expects() -> None:
    inventory = ROOT / "inventories" / "fleet"
    told = "{{ [hardening_firewall_fleet_ports, hardening_firewall_world_ports] }}"
    command = ["ansible", "all", "-i", str(inventory), "--playbook-dir", "playbooks"]
    done = subprocess.run(
        [*command, "-c", "local", "-m", "debug", "-a", f"msg={told}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(re.findall(r"^(\S+) \| SUCCESS => (\{.*?^\})", done.stdout, re.M | re.S))
    whole = load(inventory)
    for host in whole.hosts:
        fleets, world = json.loads(found[host.name])["msg"]
        assert set(fleets) == fleet_ports(whole, host)
        assert set(world) == world_ports(host)
