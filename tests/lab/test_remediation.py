"""Remediation on two engine hosts with simulated GPUs, under load: by its alerts and its records.

XIDs are the simulated GPU's, and come by exporter, Prometheus and Alertmanager; alerts whose cause
would take too long are put into Alertmanager, which tells the remediator as it tells the others.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from operators import Said, ops
from stack import Lab, SiteRun, Stack, run_site
from stand_in_stack import stand_in_stack
from traffic import Traffic, traffic

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

ENGINES, WATCH = ("node2", "node4"), "node3"
POLICY = """
remediation:
  mode: {mode}
  limits: {{per_host_per_hour: 2, cooldown_minutes: 0}}
  waits: {{drain: 20, ready: 300}}
remediator_poll_s: 10
"""
BOOT = "cat /proc/sys/kernel/random/boot_id"
RECORDS = "/var/lib/remediator/records/records.jsonl"
AMTOOL = "amtool --alertmanager.url=http://127.0.0.1:9093 alert add"
ALERT_SECONDS = 120  # a scrape, an evaluation, and what Alertmanager waits for causes
EXPOSURE = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    given = {"image": "ubuntu-24.04-facade", "gpu": "H100:1", "purpose": "remedy"}
    with stand_in_stack(labs, 4, more=POLICY.format(mode="act"), **given) as made:
        # A lab that was kept has records, which count for the limits.
        made.lab.ssh(WATCH, f"rm -f {RECORDS}; systemctl restart remediator.service")
        yield made


def set_mode(stack: Stack, mode: str) -> SiteRun:
    """Change the mode in the inventory and provision what is about it."""
    path = stack.lab.inventory / "group_vars/all.yml"
    text = re.sub(r"^  mode: .*$", f"  mode: {mode}", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    done = run_site(stack.lab, "--tags", "watch")
    assert done.status == 0, done.output[-4000:]
    again = run_site(stack.lab, "--tags", "watch", "--diff")
    assert (again.status, again.total("changed")) == (0, 0), again.output[-4000:]
    return done


def tell(stack: Stack, name: str, host: str, **labels: str) -> None:
    """Have Alertmanager know of an alert, for five minutes."""
    words = {"alertname": name, "host": host, "severity": "critical", **labels}
    stack.lab.ssh(WATCH, " ".join([AMTOOL, *(f"{key}={value}" for key, value in words.items())]))


def records(stack: Stack) -> list[dict[str, Any]]:
    """Newest first."""
    said = subprocess.run(
        ["ops", "remediate", "history", "--json", "-i", str(stack.lab.inventory)],
        cwd=stack.lab.checkout, env=stack.lab.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    return list(json.loads(said.stdout)["records"])


def wait_for(stack: Stack, seconds: float, **wanted: Any) -> dict[str, Any]:
    """Wait until the newest record is so."""
    end = time.monotonic() + seconds
    found: list[dict[str, Any]] = []
    while time.monotonic() < end:
        found = records(stack)
        if found and all(found[0][key] == value for key, value in wanted.items()):
            return found[0]
        time.sleep(2)
    log = stack.lab.ssh(WATCH, "journalctl -u remediator -n 60 --no-pager -o cat")
    raise AssertionError(f"{wanted} did not come: {found[:2]}\n{log}")


def boots(stack: Stack) -> list[str]:
    return [stack.lab.ssh(host, BOOT) for host in ENGINES]


def gpu(stack: Stack, *words: str) -> None:
    """Change a simulated GPU; a host that is about to boot takes it once it has."""
    end = time.monotonic() + 120
    while True:
        done = subprocess.run(
            ["ops", "lab", "gpu", *words, "--name", stack.lab.name],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if done.returncode == 0:
            return
        assert time.monotonic() < end, done.stderr
        time.sleep(1)


def assert_all_serve(stack: Stack) -> None:
    for host in ENGINES:
        assert stack.lab.ssh(host, "cat /var/lib/rackhand/drained 2>/dev/null || true") == ""
        assert stack.lab.ssh(host, "systemctl is-active 'engine@demo-*.service'") == "active"


def assert_nothing_was_lost(running: Traffic, least: int) -> None:
    assert running.failures == [], running.told()
    assert len(running.answers) >= least, running.told()
    print(running.told())


def history(stack: Stack) -> list[dict[str, Any]]:
    return list(json.loads(ops(stack, "history", "--json").output)["operations"])


def explained(stack: Stack, *words: str, status: int) -> Said:
    return ops(stack, "remediate", "explain", *words, "--json", status=status)


def test_a_second_run_changes_nothing_and_what_is_promised_is_true(stack: Stack) -> None:
    again = run_site(stack.lab, "--tags", "watch", "--diff")
    assert (again.status, again.total("changed")) == (0, 0), again.output[-4000:]
    checked = run_site(stack.lab, "--tags", "watch", "--check")
    assert checked.status == 0, checked.output[-4000:]
    ops(stack, "verify", "remediator")
    said = stack.lab.ssh(WATCH, "systemd-analyze security --no-pager remediator.service | tail -1")
    assert float(EXPOSURE.search(said)[1]) <= 2.0, said
    status = json.loads(ops(stack, "remediate", "status", "--json").output)
    assert (status["mode"], status["well"]) == ("act", True)


def test_its_key_opens_nothing_but_the_gate(stack: Stack) -> None:
    address = stack.fleet.host("node2").private_address
    ssh = (
        "ssh -i /etc/rackhand/credentials/remediator/ssh_key -o BatchMode=yes "
        f"-o UserKnownHostsFile=/etc/remediator/known_hosts remediator_access@{address}"
    )
    for command in ("id", "cat /etc/shadow", "true; id", ""):
        said = stack.lab.ssh(WATCH, f"{ssh} {command!r} </dev/null 2>&1; echo status=$?")
        assert "may not run that" in said, said
        assert "uid=" not in said
    said = stack.lab.ssh(WATCH, f"{ssh} {BOOT!r} </dev/null")
    assert said == stack.lab.ssh("node2", BOOT)
    refused = stack.lab.ssh("node2", "journalctl -t remediator_gate --no-pager -o cat")
    assert "refused: 'cat /etc/shadow'" in refused


def test_xid_79_under_load_drains_reboots_and_lets_in_without_a_failed_request(
    stack: Stack,
) -> None:
    before = boots(stack)
    with traffic(stack) as running:
        gpu(stack, "xid", "node2", "0", "79")
        begun = wait_for(stack, ALERT_SECONDS, verdict="act")
        gpu(stack, "reset", "node2", "0")  # what the power cycle of a host does to it
        found = wait_for(stack, 400, id=begun["id"], outcome="done")
    assert_nothing_was_lost(running, least=100)
    after = boots(stack)
    assert [a != b for a, b in zip(after, before, strict=True)] == [True, False]
    assert_all_serve(stack)
    assert (found["action"], found["host"], found["gpu"]) == ("reboot_host", "node2", 0)
    (operation,) = [one for one in history(stack) if one["id"] == found["operation"]]
    assert (operation["verb"], operation["status"]) == ("restart host", "done")
    assert operation["by"] == f"remediator@{WATCH}"
    assert operation["why"].startswith("GpuFellOff on node2 (gpu 0) [")
    time.sleep(25)  # it still fires, and is asked about again
    assert records(stack)[0]["id"] == found["id"]
    assert boots(stack) == after


def test_a_reset_frees_the_gpu_resets_it_and_loses_no_request(stack: Stack) -> None:
    before = boots(stack)
    with traffic(stack) as running:
        gpu(stack, "xid", "node4", "0", "48")
        found = wait_for(stack, 300, action="reset_gpu", outcome="done")
    assert_nothing_was_lost(running, least=50)
    assert boots(stack) == before
    assert_all_serve(stack)
    shown = stack.lab.ssh("node4", "systemctl is-active gpu_exporter.service")
    assert shown == "active"
    assert found["operation"].endswith("restart-gpu-node4-gpu-0")


def test_killed_in_the_middle_it_finishes_and_loses_no_request(stack: Stack) -> None:
    before = boots(stack)
    with traffic(stack) as running:
        tell(stack, "GpuFellOff", "node4", gpu="0")
        begun = wait_for(stack, ALERT_SECONDS, action="reboot_host", host="node4")
        end = time.monotonic() + 120
        while not stack.lab.ssh("node4", "cat /var/lib/rackhand/drained 2>/dev/null || true"):
            assert time.monotonic() < end, "it was never drained"
            time.sleep(0.5)
        stack.lab.ssh(WATCH, "systemctl kill -s KILL remediator.service")
        found = wait_for(stack, 500, id=begun["id"], outcome="done")
    assert_nothing_was_lost(running, least=100)
    assert [a != b for a, b in zip(boots(stack), before, strict=True)] == [False, True]
    assert_all_serve(stack)
    assert found["why"] == "resumed"
    assert "resume by remediator@" in ops(stack, "show", found["operation"]).output


def test_the_rate_limit_holds_and_says_so(stack: Stack) -> None:
    before = boots(stack)
    tell(stack, "EngineStalled", "node4", model="demo")
    found = wait_for(stack, ALERT_SECONDS, verdict="skip", action="restart_engine")
    assert found["code"] == "host_hour"
    said = explained(stack, "GpuFellOff", "--host", "node4", status=1)
    assert json.loads(said.output)["decisions"][0]["code"] == "host_hour"
    assert boots(stack) == before


def test_the_kill_switch_stops_it(stack: Stack) -> None:
    ops(stack, "remediate", "pause", "--why", "moving racks")
    tell(stack, "EngineStalled", "node2", model="demo")
    found = wait_for(stack, ALERT_SECONDS, code="paused", host="node2")
    assert "moving racks" in found["reason"]
    assert "paused: " in ops(stack, "remediate", "status", status=1).output


def test_a_dry_run_only_says_what_it_would_do(stack: Stack) -> None:
    set_mode(stack, "dry_run")
    before, count = boots(stack), len(history(stack))
    ops(stack, "remediate", "resume")
    tell(stack, "EngineStalled", "node2", model="demo")  # as before, lest it has ended
    found = wait_for(stack, ALERT_SECONDS, verdict="dry_run")
    assert found["reason"] == "would restart_engine on node2: EngineStalled on node2 (model demo)"
    time.sleep(15)
    assert (boots(stack), len(history(stack))) == (before, count)
    ops(stack, "verify", "remediator")
    told = json.loads(ops(stack, "remediate", "run", "--dry-run", "--json").output)["decisions"]
    assert "EngineStalled on node2 (model demo)" in [each["alert"] for each in told]


def test_turned_off_it_leaves_no_service_and_no_key(stack: Stack) -> None:
    set_mode(stack, '"off"')
    state = stack.lab.ssh(WATCH, "systemctl is-active remediator.service || true")
    assert state == "inactive"
    for host in ("node1", *ENGINES, WATCH):
        assert stack.lab.ssh(host, "ls /var/lib/remediator_access/.ssh /etc/sudoers.d") in (
            "/etc/sudoers.d:\nREADME\n\n/var/lib/remediator_access/.ssh:",
        )
    assert stack.lab.ssh(WATCH, f"wc -l < {RECORDS}") != "0"
    ops(stack, "verify", "remediator")
    assert "off" in ops(stack, "remediate", "status").output
