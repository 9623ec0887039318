from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from rendering import BOOKWORM, ROOT, Role

from ops.remedy.config import PORT, read_config
from ops.remedy.policy import Mode

UNIT = "host/etc/systemd/system/remediator.service.j2"
POLICY = {"mode": "act", "alerts": {"GpuFellOff": "drain"}}
FLEET = {
    name: {"ansible_host": address, "ansible_port": port, "models": []}
    for name, address, port in (("a", "10.0.0.1", 22), ("b", "10.0.0.2", 2222))
}


def remediator(**variables: Any) -> Role:
    more = {"playbook_dir": str(ROOT / "playbooks"), "remediator_webhook_token": "t",
            "remediator_ssh_key": "k"}  # fmt: skip
    return Role("remediator", BOOKWORM, **{**more, **variables})


def judged(given: Any) -> Any:
    templar = Templar(loader=DataLoader(), variables={"remediation": given})
    text = trust_as_template("{{ remediation | rackhand.host.remediation_policy }}")
    return templar.template(text)


def test_the_policy_reaches_the_service_whole(tmp_path: Path) -> None:
    role = remediator(remediator_policy=judged(POLICY))
    file = tmp_path / "config.yml"
    file.write_text(role.render("host/etc/remediator/config.yml.j2"))
    found = read_config(file)
    assert (found.policy.mode, found.port) == (Mode.ACT, PORT)
    assert found.policy.rules("GpuFellOff")[0].action == "drain"
    assert found.alertmanager == "http://127.0.0.1:9093"


def test_a_wrong_policy_is_refused_on_the_control_machine() -> None:
    with pytest.raises(AnsibleError, match=r"remediation\.alerts\.GpuFellOff\.0\.action"):
        judged({"mode": "act", "alerts": {"GpuFellOff": "explode"}})


@pytest.mark.parametrize("given", [{}, {"mode": False}, {"mode": "off"}])
def test_without_a_policy_it_is_off(given: Any) -> None:
    assert judged(given)["mode"] == "off"
    assert remediator(remediator_policy=judged(given)).value("__remediator_on") is False


def test_hosts_are_known_by_what_they_are_reached_by() -> None:
    keys = {"results": [{"item": n, "content": "c3NoLWVkMjU1MTkgS0VZIHJvb3RAeA=="} for n in FLEET]}
    role = remediator(remediator_fleet=FLEET, __remediator_host_keys=keys)
    assert role.value("__remediator_known_hosts") == [
        "10.0.0.1 ssh-ed25519 KEY",
        "[10.0.0.2]:2222 ssh-ed25519 KEY",
    ]


def test_it_speaks_with_the_fleet_only() -> None:
    text = remediator(remediator_peer_addresses=["10.0.0.1", "10.0.0.2"]).render(UNIT)
    assert "IPAddressDeny=any\nIPAddressAllow=localhost 10.0.0.1 10.0.0.2\n" in text


def access(**variables: Any) -> Role:
    return Role("remediator_access", BOOKWORM, playbook_dir=str(ROOT / "playbooks"), **variables)


def test_the_key_opens_the_gate_from_the_monitoring_host_and_nothing_else() -> None:
    options = access(remediator_access_from=["10.0.0.9"]).value("__remediator_access_options")
    assert options == (
        'restrict,from="10.0.0.9",command="sudo -n /usr/bin/python3 -I '
        '/usr/local/libexec/rackhand/remediator_gate.py"'
    )


def test_sudo_lets_the_gate_run_and_nothing_else() -> None:
    lines = access().render("sudoers.j2").splitlines()
    allowed = [line for line in lines if "NOPASSWD" in line]
    assert allowed == [
        "remediator_access ALL=(root) NOPASSWD: /usr/bin/python3 -I "
        "/usr/local/libexec/rackhand/remediator_gate.py"
    ]


@pytest.mark.skipif(not shutil.which("visudo"), reason="needs sudo")
def test_visudo_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "sudoers"
    file.write_text(access().render("sudoers.j2"))
    done = subprocess.run(["visudo", "-cf", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    file = tmp_path / "remediator.service"
    text = remediator().render(UNIT)
    file.write_text(text.replace("/opt/remediator/current/bin/remediator", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True
    )
    assert "remediator.service" not in done.stderr, done.stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(file)],
        capture_output=True,
        text=True,
    )
    assert judged.returncode == 0, judged.stdout[-1500:] + judged.stderr


def test_the_fleets_file_has_no_secret_and_all_that_is_read() -> None:
    text = (ROOT / "playbooks/group_vars/all.yml").read_text(encoding="utf-8")
    block = yaml.safe_load(text)["remediator_fleet"]
    names = set(json.loads(json.dumps(block)).split("'")[1::2])
    assert not [name for name in names if "password" in name or "secret" in name or "key" in name]
    assert {"ansible_host", "ansible_port", "private_address", "group_names", "models"} <= names
