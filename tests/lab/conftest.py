"""Labs for end-to-end tests, and what an operator would look at when one of them fails.

`labs(hosts, image)` boots each kind of lab once per run, `labs(1, image, "H100:2")` one whose hosts
have simulated GPUs, and a purpose gives tests a lab apart from those that expect it as `site.yml`
left it. RACKHAND_KEEP_LAB=1 keeps them, RACKHAND_TEST_LABS names them otherwise than `test`, so
that two checkouts of this machine do not take each other's.
"""

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest
from stack import Lab, Stack

from ops.places import ROOT

BOOT_SECONDS = 900
LOOK = (
    "systemctl --failed --no-legend --plain | awk '{print $1}' | while read -r unit; do "
    'echo "-- $unit"; journalctl -u "$unit" -n 50 --no-pager -o short-iso; done'
)

BOOTED: dict[str, Lab] = {}


def boot(hosts: int, image: str, gpu: str = "", purpose: str = "") -> Lab:
    prefix = os.environ.get("RACKHAND_TEST_LABS", "test")
    kind = purpose or image.split("-")[0]  # one word: a lab's name has 20 letters at most
    name = f"{prefix}-{hosts}-{kind}" + ("-gpu" if gpu else "")
    if name not in BOOTED:
        command = ["ops", "lab", "up", "--name", name, "--hosts", str(hosts), "--image", image]
        command += ["--gpu", gpu] if gpu else []
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOT_SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        nodes = [f"node{number}" for number in range(1, hosts + 1)]
        BOOTED[name] = Lab(name, ROOT / "inventories" / f"lab-{name}", nodes)
    return BOOTED[name]


@pytest.fixture(scope="session")
def labs() -> Iterator[Callable[..., Lab]]:
    """Boot a lab of so many hosts of an image, once per test run."""
    yield boot
    if os.environ.get("RACKHAND_KEEP_LAB") == "1":
        return
    for name in list(BOOTED):
        subprocess.run(
            ["ops", "lab", "down", "--name", name],
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=300,
        )
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


@pytest.fixture(scope="session")
def stacks(labs: Callable[[int, str], Lab]) -> Callable[[int, str], Stack]:
    """Converge a lab of so many hosts of an image, once per test run."""
    converged: dict[tuple[int, str], Stack] = {}

    def converge(hosts: int, image: str) -> Stack:
        if (hosts, image) not in converged:
            stack = Stack(labs(hosts, image))
            stack.converge()
            converged[hosts, image] = stack
        return converged[hosts, image]

    return converge
