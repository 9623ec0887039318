"""Role hardening on hosts that serve: what a second host can reach, who is shut out, what updates.

The labs are those that test_site.py has just converged.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from port_scan import scan
from security_archive import Archive
from stack import Lab, Stack, run_site

from ops.fleet.model import Host
from ops.lab.fleet_plan import OUTSIDE, require_plan
from ops.verify.ports import fleet_ports, ssh_ports, world_ports

pytestmark = pytest.mark.lab

SSHD = "/etc/ssh/sshd_config.d/00-rackhand.conf"
SPOILT = (
    *("4444/tcp to everyone", "passwordauthentication yes", "/etc/ssh/sshd_config", "/etc/shadow"),
    *("accept_redirects is 1", "fail2ban.service is inactive"),
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1, "bookworm"), id="one host, Debian 12"),
        pytest.param((3, "trixie"), id="three hosts, Debian 13"),
    ],
)
def stack(request: pytest.FixtureRequest, stacks) -> Stack:
    return stacks(*request.param)


def reachable(lab: Lab, source: str, address: str, ports: set[int]) -> dict[int, str]:
    """How each port answers a connection from another host: open, refused or silent."""
    program = (
        "import json, socket, sys\n"
        "found = {}\n"
        "for port in json.loads(sys.argv[2]):\n"
        "    try:\n"
        "        socket.create_connection((sys.argv[1], port), 1).close()\n"
        "        found[port] = 'open'\n"
        "    except ConnectionRefusedError:\n"
        "        found[port] = 'refused'\n"
        "    except OSError:\n"
        "        found[port] = 'silent'\n"
        "print(json.dumps(found))\n"
    )
    words = f"python3 - {address} '{json.dumps(sorted(ports))}' <<'END'\n{program}END"
    return {int(port): state for port, state in json.loads(lab.ssh(source, words)).items()}


def verify(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ops", "verify", "-i", str(stack.lab.inventory), "--hardening", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )


def test_from_outside_only_what_the_inventory_says_is_open(stack: Stack) -> None:
    seen = scan([host.address for host in stack.fleet.hosts])
    for host in stack.fleet.hosts:
        states = seen[host.address]
        answered = {port for port, state in states.items() if state != "filtered"}
        wanted = ssh_ports(host) | world_ports(host)
        assert {port for port, state in states.items() if state == "open"} == wanted
        assert answered == wanted, f"{host.name} also answers at {sorted(answered - wanted)}"


def test_among_the_fleet_the_ports_of_each_group_are_open_and_no_others(stack: Stack) -> None:
    if stack.fleet.single:
        pytest.skip("one host: everything is on its loopback")
    first, *others = stack.fleet.hosts
    for source, target in ((others[0], first), *((first, other) for other in others)):
        wanted = fleet_ports(stack.fleet, target)
        found = reachable(stack.lab, source.name, target.private_address, wanted | {5433, 8100})
        closed = {port for port in wanted if found[port] == "silent"}
        assert not closed, f"{source.name} does not reach {target.name} at {sorted(closed)}"
        assert found[5433] == "refused", "a mistake shows at once"
        # From `outside`, which is on the same wire and no host of the fleet, none answers.
        seen = reachable(stack.lab, OUTSIDE, target.private_address, set(sorted(wanted)[:2]))
        assert set(seen.values()) == {"silent"}, seen


def test_verify_finds_the_hosts_hardened(stack: Stack) -> None:
    done = verify(stack)
    assert done.returncode == 0, done.stdout + done.stderr


def test_verify_names_what_is_spoilt_and_the_cure(stack: Stack) -> None:
    host = stack.fleet.hosts[0].name
    spoil = (
        "nft insert rule inet rackhand input tcp dport 4444 accept; "
        f"sed -i 's/^PasswordAuthentication no/PasswordAuthentication yes/' {SSHD}; "
        "chmod 644 /etc/ssh/sshd_config /etc/shadow; "
        "sysctl -qw net.ipv4.conf.all.accept_redirects=1; "
        "systemctl stop fail2ban"
    )
    mend = (
        f"sed -i 's/^PasswordAuthentication yes/PasswordAuthentication no/' {SSHD}; "
        "chmod 600 /etc/ssh/sshd_config; chmod 640 /etc/shadow; "
        "sysctl -qw net.ipv4.conf.all.accept_redirects=0; "
        "systemctl reload rackhand-firewall; systemctl start fail2ban"
    )
    stack.lab.ssh(host, spoil)
    try:
        done = verify(stack, "--json")
    finally:
        stack.lab.ssh(host, mend)
    assert done.returncode == 1
    failed = [r for r in json.loads(done.stdout)["results"] if r["outcome"] == "failed"]
    said = "\n".join(each["message"] for each in failed)
    assert {each["host"] for each in failed} == {host}
    for word in SPOILT:
        assert word in said, f"{word} is not in:\n{said}"
    assert all("cure:" in each["message"] or "journal" in each["message"] for each in failed), said


@contextmanager
def banned_for(stack: Stack, edge: Host, jail: str, command: str) -> Iterator[str]:
    """Let `outside` misbehave until it is banned; it is let in again at the end."""
    address = require_plan(stack.lab.name).address(OUTSIDE)
    stack.lab.ssh(OUTSIDE, command, check=False)
    try:
        for _ in range(60):
            status = stack.lab.ssh(edge.name, f"fail2ban-client status {jail}")
            if address in status:
                break
            time.sleep(0.5)
        yield status
    finally:
        stack.lab.ssh(edge.name, f"fail2ban-client unban {address}")


def test_who_guesses_keys_is_shut_out_and_the_fleet_is_not(stack: Stack) -> None:
    edge = stack.fleet.first("edge")
    url = f"--resolve {stack.fleet.domain}:443:{edge.address} https://{stack.fleet.domain}"
    guess = (
        "for n in $(seq 40); do curl -sk -o /dev/null -H 'Authorization: Bearer wrong-'$n "
        f"{url}/usage; sleep 0.1; done"
    )
    ask = f"curl -sk -m 5 -o /dev/null -w '%{{http_code}}' {url}/health || true"
    with banned_for(stack, edge, "rackhand-edge-refused", guess) as status:
        assert require_plan(stack.lab.name).address(OUTSIDE) in status, status
        assert stack.lab.ssh(OUTSIDE, ask) == "000"
        assert stack.lab.ssh(edge.name, ask) == "200"
        table = stack.lab.ssh(edge.name, "nft list table inet rackhand")
        assert "policy drop" in table, "a ban is a table of its own"
    assert stack.lab.ssh(OUTSIDE, ask) == "200"
    # A host of the fleet may be as wrong as it likes.
    peer = stack.fleet.hosts[-1].name
    stack.lab.ssh(peer, guess, check=False)
    assert stack.lab.ssh(peer, ask) == "200"


def test_an_update_leaves_the_gpu_stack_alone(stack: Stack, tmp_path: Path) -> None:
    if not stack.fleet.single:
        pytest.skip("shown on one host")
    gpu = stack.fleet.first("gpu").name
    kept = ["nvidia-utils-580-server", "libnvidia-compute-580-server", "cuda-toolkit-13-0"]
    kept += ["nvidia-container-toolkit", "linux-image-6.8.0-60-generic"]
    moved = ["rackhand-security-probe"]
    with Archive(stack.lab, gpu, tmp_path).offering([*kept, *moved]):
        said = stack.lab.ssh(gpu, "unattended-upgrade --dry-run --debug 2>&1")
    upgraded = [line for line in said.splitlines() if "Packages that will be upgraded" in line]
    assert upgraded, said[-4000:]
    words = " ".join(upgraded).partition(":")[2].split()
    assert set(moved) <= set(words), upgraded
    assert not set(kept) & set(words), upgraded


def test_a_run_that_would_shut_itself_out_stops_before_anything_changes(stack: Stack) -> None:
    arguments = ("--tags", "hardening", "-e", '{"hardening_ssh_from": ["192.0.2.0/24"]}')
    run = run_site(stack.lab, *arguments)
    assert run.status != 0
    assert "would shut this very connection out" in run.output
    assert run.total("changed") == 0
