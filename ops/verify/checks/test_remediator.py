"""What remediation promises where the inventory turned it on, and where it did not."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.remedy.policy import Mode, read_policy
from ops.verify.probes import ask, assert_access, assert_listens_only_at, assert_unit_runs, http

UNIT = "remediator.service"
HOME = "/var/lib/remediator_access"
KEYS = f"{HOME}/.ssh/authorized_keys"
GATE = "/usr/local/libexec/rackhand/remediator_gate.py"


@pytest.fixture
def mode(target: Host) -> Mode:
    """What the inventory wants."""
    return read_policy(target.variables.get("remediation")).mode


@pytest.fixture
def door(target: Host, fleet: Fleet, mode: Mode) -> int:
    """The service's port, on its host."""
    if mode == Mode.OFF or target not in fleet.group("monitoring")[:1]:
        pytest.skip("the remediator does not run on this host")
    return int(target.variables.get("remediator_port", 9120))


@pytest.fixture
def access(mode: Mode) -> Mode:
    """How far the key goes."""
    if mode == Mode.OFF:
        pytest.skip("remediation is off")
    return mode


def test_it_runs_and_comes_back_after_a_reboot(host: Connection, door: int) -> None:
    assert_unit_runs(host, UNIT)


def test_it_listens_on_the_loopback_only(host: Connection, door: int) -> None:
    assert_listens_only_at(host, door, {"127.0.0.1"})


def test_its_rounds_go_on_in_the_mode_that_is_wanted(
    host: Connection, door: int, mode: Mode
) -> None:
    status, text = http(host, f"http://127.0.0.1:{door}/health")
    assert status == 200, text
    told = json.loads(text)
    assert told["mode"] == mode, "cure: ops provision --tags watch"
    assert not told["paused"], f"paused by {told['paused']}\ncure: ops remediate resume"


def test_a_webhook_without_the_token_is_refused(host: Connection, door: int) -> None:
    status, _ = http(host, f"http://127.0.0.1:{door}/", body={"version": "4", "alerts": []})
    assert status == 401


def test_it_does_not_run_as_root(host: Connection, door: int) -> None:
    pid = ask(host, "systemctl show -p MainPID --value %s", UNIT)
    assert ask(host, "stat -c %%U /proc/%s", pid) == "remediator"


def test_the_key_opens_the_gate_and_nothing_else(host: Connection, access: Mode) -> None:
    assert_access(host, KEYS, "root", "root", 0o644)
    (line,) = ask(host, "cat %s", KEYS).splitlines()
    assert line.startswith("restrict,"), line
    assert f'command="sudo -n /usr/bin/python3 -I {GATE}"' in line


def test_the_gate_is_roots_and_goes_as_far_as_the_mode(host: Connection, access: Mode) -> None:
    assert_access(host, GATE, "root", "root", 0o644)
    told = json.loads(ask(host, "cat /etc/rackhand/remediator_gate.json"))
    assert told["act"] is (access == Mode.ACT)
    assert_access(host, "/etc/sudoers.d/remediator_access", "root", "root", 0o440)


def test_where_it_is_off_no_key_is_left(host: Connection, mode: Mode) -> None:
    if mode != Mode.OFF:
        pytest.skip("remediation is on")
    assert not host.file(KEYS).exists, "cure: ops provision --tags watch"
