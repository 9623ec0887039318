"""The gate passes what remediation's steps say, and nothing beside it."""

from __future__ import annotations

import hashlib
import json
import shlex
from shlex import quote

import pytest
from ansible.plugins.loader import lookup_loader
from rendering import ROOT

from ops.engine import traffic
from ops.operations.keeper import _command
from ops.remedy.gate_program import PROGRAMS, SHAPES, judge
from ops.restarts import gpu_steps, host_steps

TEXTS = {
    "keeper": ROOT / "ops/operations/keeper_program.py",
    "look": ROOT / "ops/live/look_program.py",
    "switch": ROOT / "ops/engine/switch_program.py",
    "instance": ROOT / "ops/app/instance_program.py",
}


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    """What role remediator_access writes: from the collection's own lookup."""
    found = lookup_loader.get("rackhand.host.remediator_programs").run([str(ROOT)])
    return dict(found[0])


def program(name: str, *words: str) -> str:
    return f"python3 -c {quote(TEXTS[name].read_text())} {' '.join(map(quote, words))}"


def test_every_program_of_the_gate_is_known_by_its_text(programs: dict[str, str]) -> None:
    assert set(programs.values()) == set(PROGRAMS)
    for name, path in TEXTS.items():
        assert programs[hashlib.sha256(path.read_bytes()).hexdigest()] == name
    assert programs[hashlib.sha256(traffic.COUNT.encode()).hexdigest()] == "count"
    assert programs[hashlib.sha256(traffic.PROBE.encode()).hexdigest()] == "probe"


@pytest.mark.parametrize(
    "command",
    [
        "true",
        "mkdir -p /var/lib/rackhand && printf '%s\\n' 'operation 20261126-101500-restart-host-gpu1'"
        f" > {traffic.DRAINED}",
        f"rm -f {traffic.DRAINED}",
        "cat /etc/ansible/facts.d/engine.fact 2>/dev/null || echo '{}'",
        f"cat {host_steps.BOOT_ID}",
        host_steps.BOOTED.format(seconds=1800),
        host_steps.ORDER,
        gpu_steps.LIST,
        gpu_steps.ENABLED,
        "systemctl stop engine@demo-blue.service gpu_exporter.service nvidia-persistenced.service",
        "systemctl start --no-block gpu_exporter.service engine@demo-blue.service",
        "systemctl stop engine@a-b-green.service; "
        "systemctl reset-failed engine@a-b-green.service 2>/dev/null || true",
        "systemctl reset-failed engine@demo-blue.service 2>/dev/null; "
        "systemctl start --no-block engine@demo-blue.service",
        "journalctl --no-pager -o cat -n 12 -u engine@demo-blue.service",
        "timeout 120 nvidia-smi --gpu-reset -i 0",
        "timeout 120 nvidia-smi --gpu-reset",
        "timeout 120 nvidia-smi --query-gpu=index --format=csv,noheader",
    ],
)
def test_a_shape_of_the_steps_goes_to_the_shell(command: str, programs: dict[str, str]) -> None:
    assert judge(command, programs)[0] == ["/bin/sh", "-c", command]


def test_programs_with_their_verbs_run_without_a_shell(programs: dict[str, str]) -> None:
    for command in (
        _command("hold", json.dumps({"id": "x", "who": "remediator", "why": 'it\'s "so" $HOME'})),
        _command("list"),
        _command("read", "20261126-101500-x"),
        program("look", json.dumps({"units": ["a"]})),
        program("switch", "set_held", json.dumps({"model": "demo", "reason": "x"})),
        program("instance", "connections", json.dumps({"port": 8200})),
        f"python3 -c {quote(traffic.COUNT)} 8100 8101",
        f"python3 -c {quote(traffic.COUNT)} ",
        f"python3 -c {quote(traffic.PROBE)} 60 8100 demo",
    ):
        words, _ = judge(command, programs)
        assert words[:2] == ["/usr/bin/python3", "-c"], command[-200:]
        assert words[2:] == shlex.split(command)[2:]


HOLD = _command("hold", "{}")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "bash",
        "true; id",
        "true\nid",
        "cat /etc/shadow",
        "cat /proc/sys/kernel/random/boot_id; id",
        "rm -f /var/lib/rackhand/drained /etc/passwd",
        "rm -rf /",
        "systemctl stop sshd.service",
        "systemctl stop engine@demo-blue.service sshd.service",
        "systemctl stop engine@$(id)-blue.service",
        "systemctl start --no-block evil.service",
        "systemctl reboot",
        "timeout 120 nvidia-smi --gpu-reset -i 0; id",
        "timeout 120 nvidia-smi -pm 0",
        "mkdir -p /var/lib/rackhand && printf '%s\\n' 'operation x'; id; '"
        " > /var/lib/rackhand/drained",
        "mkdir -p /var/lib/rackhand && printf '%s\\n' 'operation $(id)'"
        " > /var/lib/rackhand/drained",
        "python3 -c 'import os; os.system(\"id\")'",
        "python3",
        "python3 -c",
        "python3 -c 'unclosed",
        f"{HOLD}; id",
        f"{HOLD} && id",
        f"{HOLD} $(id)",
        f"{HOLD} > /etc/passwd",
        f"{HOLD}\nid",
        f"env {HOLD}",
        HOLD.replace("/var/lib/rackhand/operations", "/etc"),
        HOLD.replace(" hold ", " steal "),
        program("switch", "set_traffic", "{}"),
        program("switch", "set_fact", "{}"),
        program("instance", "set_release", "{}"),
        program("instance", "migrate", "{}"),
        f"python3 -c {quote(traffic.COUNT)} 8100 $(id)",
        f"python3 -c {quote(traffic.PROBE)} 60 8100 'a b'",
        f"python3 -c {quote(traffic.PROBE + ' ')} 60 8100 demo",
    ],
)
def test_everything_else_is_refused(command: str, programs: dict[str, str]) -> None:
    assert judge(command, programs) == ([], "")


def test_no_shape_begins_or_ends_in_the_middle() -> None:
    for shape in SHAPES:
        assert not shape.pattern.startswith(".*")
        assert ".*" not in shape.pattern
        assert not shape.fullmatch("true; true")


def test_in_a_dry_run_the_key_may_only_look(programs: dict[str, str]) -> None:
    for command in (program("look", "{}"), _command("list"), _command("read", "x")):
        assert judge(command, programs, act=False)[0]
    for command in (HOLD, host_steps.ORDER, "true", program("switch", "survey", "{}")):
        assert judge(command, programs, act=False) == ([], "")
