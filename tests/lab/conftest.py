"""Labs for end-to-end tests, and what an operator would look at when one of them fails.

`labs(hosts, image)` boots each kind of lab once per run; RACKHAND_KEEP_LAB=1 keeps them.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ops.places import ROOT

SITE_SECONDS = 1500
BOOT_SECONDS = 900
RECAP = re.compile(r"^(\S+)\s+: (ok=\d+.*)$", re.MULTILINE)
LOOK = (
    "systemctl --failed --no-legend --plain | awk '{print $1}' | while read -r unit; do "
    'echo "-- $unit"; journalctl -u "$unit" -n 50 --no-pager -o short-iso; done'
)


@dataclass(frozen=True)
class SiteRun:
    """What a run of site.yml ended with: counts such as {"node1": {"ok": 40, "changed": 0}}."""

    status: int
    output: str
    hosts: dict[str, dict[str, int]]

    def total(self, count: str) -> int:
        return sum(host[count] for host in self.hosts.values())


@dataclass
class Lab:
    """A lab that is up."""

    name: str
    inventory: Path
    nodes: list[str] = field(default_factory=list)

    def ssh(self, host: str, command: str, *, check: bool = True) -> str:
        """Run a shell command on a host as root."""
        words = ["ops", "lab", "ssh", "--name", self.name, host, "--", command]
        result = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert not check or result.returncode == 0, f"{host}: {command}\n{result.stderr}"
        return result.stdout.strip()


def run_site(lab: Lab, *arguments: str) -> SiteRun:
    """Run playbooks/site.yml on a lab, as a person would."""
    command = ["ansible-playbook", "-i", str(lab.inventory), "playbooks/site.yml", *arguments]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SITE_SECONDS, env=environment
    )
    hosts = {
        name: {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        for name, counts in RECAP.findall(done.stdout)
    }
    return SiteRun(done.returncode, done.stdout + done.stderr, hosts)


BOOTED: dict[str, Lab] = {}


def boot(hosts: int, image: str) -> Lab:
    name = f"test-{hosts}-{image.split('-')[0]}"
    if name not in BOOTED:
        command = ["ops", "lab", "up", "--name", name, "--hosts", str(hosts), "--image", image]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOOT_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        nodes = [f"node{number}" for number in range(1, hosts + 1)]
        BOOTED[name] = Lab(name, ROOT / "inventories" / f"lab-{name}", nodes)
    return BOOTED[name]


@pytest.fixture(scope="session")
def labs() -> Iterator[Callable[[int, str], Lab]]:
    """Boot a lab of so many hosts of an image, once per test run."""
    yield boot
    if os.environ.get("RACKHAND_KEEP_LAB") == "1":
        return
    for name in list(BOOTED):
        subprocess.run(["ops", "lab", "down", "--name", name], check=True, timeout=300)
        del BOOTED[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Add each host's failed units and their last journal lines to a failed test."""
    report = yield
    if report.failed and "labs" in getattr(item, "fixturenames", ()):
        for lab in BOOTED.values():
            for node in lab.nodes:
                found = lab.ssh(node, LOOK, check=False)
                if found:
                    report.sections.append((f"failed units of {lab.name}/{node}", found))
    return report
