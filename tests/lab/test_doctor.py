"""`ops doctor` on a host that serves: each cause made for real, named, cured by what it says."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from operators import ops, ops_until
from stack import Lab, Stack
from stand_in_stack import stand_in_stack

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

NODE = "node1"
ENGINE = "engine@demo-blue.service"
SETTINGS = "/etc/engine/demo-blue.env"
SOON_SECONDS = 90.0
PROVISION = ("provision", "--tags", "engine", "--limit", NODE, "-e", "engine_accept_restart=true")
Finding = dict[str, Any]


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs) as made:
        yield made


def examine(stack: Stack) -> tuple[int, list[Finding]]:
    """The exit status, and what is found but what a lab's host always has."""
    said = ops(stack, "doctor", "--json", status=None)
    document = json.JSONDecoder().raw_decode(said.output[said.output.index("{") :])[0]
    assert document["format"] == 1
    assert document["exit_code"] == said.status
    assert not document["hosts"][0]["complaints"], document["hosts"][0]
    return said.status, [f for f in document["hosts"][0]["findings"] if f["severity"] != "info"]


def until(stack: Stack, holds: Callable[[int, list[Finding]], bool]) -> list[Finding]:
    """Examine until it holds, at most SOON_SECONDS."""
    end = time.monotonic() + SOON_SECONDS
    while True:
        status, found = examine(stack)
        if holds(status, found):
            return found
        assert time.monotonic() < end, json.dumps(found, indent=1)
        time.sleep(2)


def until_well(stack: Stack) -> None:
    until(stack, lambda status, found: status == 0 and not found)


def sh(stack: Stack, command: str) -> str:
    return stack.lab.ssh(NODE, command)


def named(stack: Stack, case: str) -> Finding:
    """The finding of a case, once it is there."""
    found = until(stack, lambda _, found: any(f["case"] == case for f in found))
    return next(f for f in found if f["case"] == case)


@dataclass(frozen=True)
class Ailment:
    """A cause, what it is called, and its cure.

    Attributes:
        case: The doctor's name for it.
        subject: What it is about; empty where that varies.
        cause: Shell on the host.
        cure: Shell on the host, each part of which the finding's cure names.
        clean: Shell on the host before that: mends what no command can.
    """

    case: str
    subject: str
    cause: str
    cure: tuple[str, ...]
    clean: str = ""


AILMENTS = [
    Ailment("redis-down", "redis-server@cache.service", "systemctl stop redis-server@cache",
            ("systemctl start redis-server@cache.service",)),
    Ailment("redis-down", "redis-server@state.service",
            "sed -i '1i nonsense yes' /etc/redis/redis-state.conf; "
            "systemctl restart redis-server@state || true",
            ("systemctl start redis-server@state.service",),
            clean="sed -i 1d /etc/redis/redis-state.conf; "
                  "systemctl reset-failed redis-server@state"),
    Ailment("postgres-down", "", "systemctl stop 'postgresql@*'",
            ("systemctl start postgresql@15-main.service",)),
    Ailment("nginx-down", "nginx.service", "systemctl stop nginx", ("systemctl start nginx",)),
    Ailment("nginx-config-invalid", "nginx.service",
            "echo 'nonsense;' > /etc/nginx/edge.d/person.conf", (),
            clean="rm /etc/nginx/edge.d/person.conf"),
    Ailment("certificate-expires", "certificate",
            "mkdir -p /etc/nginx/tls/provided && cd /etc/nginx/tls/provided && openssl req -x509 "
            "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 5 -subj /CN=short "
            "-keyout privkey.pem -out fullchain.pem 2>/dev/null && systemctl reload nginx", (),
            clean="rm -r /etc/nginx/tls/provided; systemctl reload nginx"),
    Ailment("certificate-renewal-off", "certbot.timer", "systemctl stop certbot.timer",
            ("systemctl enable --now certbot.timer",)),
    Ailment("active-slot-stopped", ENGINE, f"systemctl stop {ENGINE}",
            (f"systemctl start {ENGINE}",)),
    Ailment("port-taken", ENGINE,
            f"systemctl stop {ENGINE}; systemd-run -q --unit=squatter python3 -m http.server 8100 "
            f"--bind 127.0.0.1; sleep 1; systemctl start {ENGINE}",
            ("systemctl stop squatter.service", f"systemctl restart {ENGINE}")),
    Ailment("packages-half-configured", "dpkg",
            "mkdir -p /tmp/half/DEBIAN && printf 'Package: half\\nVersion: 1\\nArchitecture: all\\n"
            "Maintainer: nobody <n@example.com>\\nDescription: none\\n' > /tmp/half/DEBIAN/control "
            "&& dpkg-deb -b /tmp/half /tmp/half.deb && dpkg --unpack /tmp/half.deb",
            ("dpkg --configure -a",), clean="dpkg -P half"),
    Ailment("host-left-drained", "host", "echo 'ann: by hand' > /var/lib/rackhand/drained",
            ("rm /var/lib/rackhand/drained",)),
    Ailment("model-left-held", "demo",
            "mkdir -p /var/lib/rackhand/held && echo ann > /var/lib/rackhand/held/demo",
            ("rm /var/lib/rackhand/held/demo",)),
    Ailment("app-down", "agent_app@8201.service", "systemctl stop agent_app@8201",
            ("systemctl start agent_app@8201.service",)),
    Ailment("unit-failed", "broken.service",
            "systemd-run -q --unit=broken sh -c 'echo it broke; exit 3'; sleep 1", (),
            clean="systemctl reset-failed broken"),
]  # fmt: skip


def test_a_host_that_serves_is_healthy_and_says_so_in_eighty_columns(stack: Stack) -> None:
    until_well(stack)
    said = ops(stack, "doctor")
    print(said.output)
    assert max(map(len, said.output.splitlines())) <= 80
    assert "healthy" in said.output or "info" in said.output


@pytest.mark.parametrize("ailment", AILMENTS, ids=lambda a: f"{a.case}-{a.subject}".rstrip("-"))
def test_a_cause_is_named_and_its_cure_cures_it(stack: Stack, ailment: Ailment) -> None:
    until_well(stack)
    sh(stack, ailment.cause)
    try:
        found = named(stack, ailment.case)
    finally:  # the next test begins on a host that is well, whatever this one finds
        for command in (ailment.clean, *ailment.cure):
            stack.lab.ssh(NODE, command or "true", check=False)
    print(json.dumps(found, indent=1))
    assert found["subject"] == ailment.subject or not ailment.subject, found
    assert found["evidence"], found
    assert all(command in found["cure"] for command in ailment.cure), found["cure"]
    until_well(stack)


@pytest.mark.parametrize(
    ("change", "case"),
    [
        ("s/--max-model-len/--max-num-seqs many --max-model-len/", "engine-flag-unknown"),
        ("$ a STAND_IN_FAULTS=out_of_memory", "cuda-out-of-memory-at-load"),
        ("$ a STAND_IN_FAULTS=hang", "engine-makes-no-token"),
        ("s,serve /srv/models/demo/[^ ]*,serve /srv/models/demo/absent,", "weights-absent"),
        ("s,^ENGINE_COMMAND=.*,ENGINE_COMMAND=/opt/vllm/none/bin/vllm,", "vllm-environment-absent"),
    ],
)
def test_an_engine_whose_settings_were_spoilt_is_named_and_its_role_cures_it(
    stack: Stack, change: str, case: str
) -> None:
    until_well(stack)
    # The tests before this one started it often: its start limit is not what is asked about here.
    restart = f"systemctl reset-failed {ENGINE}; systemctl restart --no-block {ENGINE}"
    sh(stack, f"sed -i {json.dumps(change)} {SETTINGS}; {restart}")
    found = named(stack, case)
    print(json.dumps(found, indent=1))
    assert (found["subject"], found["severity"]) == (ENGINE, "critical")
    ops(stack, *PROVISION)
    until_well(stack)


def test_weights_that_are_cut_are_fetched_again_and_only_they(stack: Stack) -> None:
    until_well(stack)
    folder = sh(stack, f"sed -n 's/.*serve \\(\\S*\\).*/\\1/p' {SETTINGS}")
    kept = sh(stack, f"stat -c %i {folder}/config.json")
    sh(stack, f"truncate -s 1000 {folder}/model.safetensors")
    found = named(stack, "weights-not-whole")
    assert "model.safetensors: 1000 bytes" in "".join(found["evidence"])
    move = f"mv {folder} {folder}.staging"
    assert move in found["cure"]
    assert "ops model stage demo" in found["cure"]
    sh(stack, move)
    ops(stack, "model", "stage", "demo", "--yes")
    sh(stack, f"systemctl reset-failed {ENGINE}; systemctl restart {ENGINE}")
    assert sh(stack, f"stat -c %i {folder}/config.json") == kept
    until_well(stack)


def test_an_operation_that_its_operator_left_is_named_and_resumed(stack: Stack) -> None:
    until_well(stack)
    died = ops_until(
        stack, "restart", "app", "--yes",
        dies=lambda event: event["event"] == "begin" and event["kind"] == "app.cycle",
    )  # fmt: skip
    found = named(stack, "operation-unfinished")
    assert died.id in found["symptom"]
    assert found["cure"].startswith("ops resume")
    ops(stack, "resume")
    until_well(stack)


def test_a_disk_that_fills_is_named_with_what_fills_it(stack: Stack) -> None:
    """A file system of its own in a file, mounted where the journal would be."""
    until_well(stack)
    place = "/var/lib/small"
    mount = (
        f"mkdir -p {place} && truncate -s 64M /var/tmp/small.img && mkfs.ext4 -q /var/tmp/small.img"
        f" && for n in 90 91 92; do [ -b /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done;"
        f" mount -o loop=/dev/loop91 /var/tmp/small.img {place} && df {place}"
    )
    if not stack.lab.ssh(NODE, mount, check=False):
        pytest.skip("this lab's hosts may not mount a file system of a file")
    try:
        sh(stack, f"dd if=/dev/zero of={place}/full bs=1M count=55 status=none || true")
        found = named(stack, "disk-filling")
        assert found["subject"] == place
        sh(stack, f"rm {place}/full")
        until_well(stack)
    finally:
        sh(stack, f"umount {place}; rm /var/tmp/small.img")


def test_a_host_that_cannot_be_reached_is_exit_status_2(stack: Stack, tmp_path: Path) -> None:
    inventory = tmp_path / "elsewhere.yml"
    inventory.write_text(
        json.dumps({"all": {"vars": {"domain": "a.example.com", "models": []},
                            "children": {group: {"hosts": {"far": {"ansible_host": "127.0.0.1",
                                                                   "ansible_port": 1}}}
                                         for group in ("gpu", "agent", "data", "edge")}}})
    )  # fmt: skip
    done = subprocess.run(["ops", "doctor", "-i", str(inventory), "--json"], capture_output=True,
                          text=True, timeout=120, env=stack.lab.environment)  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "far cannot be reached" in json.loads(done.stdout)["hosts"][0]["problem"]
