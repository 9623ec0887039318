"""Kill any lab command at any instant: the next `up` or `down` leaves exactly what is wanted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.lab.cgroup import Group
from ops.lab.fleet_plan import LabPlan, require_plan
from ops.lab.paths import REPOSITORY, LabPaths

pytestmark = pytest.mark.lab

LAB = [sys.executable, "-m", "ops.cli.lab"]


def lab(*words: str) -> str:
    done = subprocess.run(
        [*LAB, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, f"ops lab {' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def kill_midway(delay: float, *words: str) -> bool:
    """Start a command, SIGKILL it after a while; whether it was still at work."""
    command = subprocess.Popen(
        [*LAB, *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(delay)
    command.kill()
    return command.wait() == -signal.SIGKILL


def traces(name: str) -> list[str]:
    """All that a lab could leave on this machine."""
    found = [
        f"process {p.parent.name}" for p in Path("/proc").glob("[0-9]*/cmdline") if of(p, name)
    ]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if f"/labs/{name}/" in line]
    links = subprocess.run(
        ["ip", "-br", "link"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    ).stdout
    found += [f"link {line}" for line in links.splitlines() if f"vb-{name}-" in line]
    tables = subprocess.run(
        ["nft", "list", "tables"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    ).stdout
    found += [line for line in tables.splitlines() if line.endswith(f" rackhand_{name}")]
    paths = LabPaths(name)
    left = [paths.root, paths.inventory, Group(name).path]
    left += Path("/run/systemd/nspawn/propagate").glob(f"{name}-*")
    return found + [f"path {path}" for path in left if path.exists()]


def of(cmdline: Path, name: str) -> bool:
    try:
        words = cmdline.read_bytes()
    except OSError:
        return False
    return f"--machine={name}-".encode() in words or f"/labs/{name}/".encode() in words


def assert_exactly_running(plan: LabPlan) -> None:
    for host in plan.hosts:
        command = [
            *LAB,
            "ssh",
            host,
            "--name",
            plan.name,
            "--",
            "systemctl is-system-running --wait",
        ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=REPOSITORY
        )
        assert done.stdout.strip() == "running", f"{host}: {done.stdout} {done.stderr}"
    guests = [p.parent.name for p in Group(plan.name).path.glob("*/guest")]
    assert sorted(guests) == sorted(plan.hosts)
    nspawns = sum(of(p, plan.name) for p in Path("/proc").glob("[0-9]*/cmdline"))
    assert nspawns == 2 * len(plan.hosts), "one supervisor and one container per host"
    assert Path("/sys/class/net", plan.bridge).exists()


def machine_state() -> dict[str, object]:
    """What belongs to the machine and to no lab."""
    links = json.loads(
        subprocess.run(
            ["ip", "-j", "address"], stdin=subprocess.DEVNULL, capture_output=True
        ).stdout
    )
    own = [link for link in links if not link["ifname"].startswith(("rh-", "vb-"))]
    for link in own:
        for address in link["addr_info"]:
            address.pop("valid_life_time", None)
            address.pop("preferred_life_time", None)
    tables = subprocess.run(
        ["nft", "list", "tables"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    ).stdout
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "links": own,
        "tables": [line for line in tables.splitlines() if "rackhand_" not in line],
        "mounts": sorted(line.split()[4] for line in mounts),
    }


@pytest.fixture
def name() -> Iterator[str]:
    name = "crash"
    lab("down", "--name", name)
    before = machine_state()
    yield name
    lab("down", "--name", name)
    assert traces(name) == []
    assert machine_state() == before


def whole(name: str, verb: str) -> float:
    """Seconds that a whole `up` from nothing, or a whole `down`, takes here: kills fall inside."""
    began = time.monotonic()
    lab(*([verb, "--hosts", "2"] if verb == "up" else [verb]), "--name", name)
    return time.monotonic() - began


def crash_and_heal(name: str, moments: random.Random, rounds: int) -> int:
    """Kill `up` and `down` in turn; after each a whole command heals it. Kills that hit."""
    whole(name, "up")  # the first of a machine builds images, which is not what is timed
    lab("down", "--name", name)
    hits = 0
    lasts = {verb: whole(name, verb) for verb in ("up", "down")}
    for number in range(rounds):
        verb = "up" if number % 4 < 2 else "down"
        lab("down" if verb == "up" else "up", "--name", name)
        words = [verb, "--hosts", "2"] if verb == "up" else [verb]
        hits += kill_midway(moments.uniform(0.15, lasts[verb]), *words, "--name", name)
        if number % 2:
            lab("down", "--name", name)
            assert traces(name) == [], f"round {number}"
        else:
            lab("up", "--hosts", "2", "--name", name)
            assert_exactly_running(require_plan(name))
    return hits


@pytest.mark.timeout(900)
def test_commands_killed_at_random_moments_are_healed_by_the_next(name: str) -> None:
    assert crash_and_heal(name, random.Random(7), rounds=6) >= 3


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_commands_killed_at_random_moments_are_healed_by_the_next(name: str) -> None:
    seed = int(os.environ.get("RACKHAND_SEED", time.time_ns() % 10**6))
    print(f"RACKHAND_SEED={seed}")
    assert crash_and_heal(name, random.Random(seed), rounds=100) >= 50


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["keeper", "guest"])
def test_a_killed_supervisor_or_container_is_healed(name: str, victim: str) -> None:
    lab("up", "--name", name)
    plan = require_plan(name)
    for host in plan.hosts:
        pids = Group(f"{name}/{host}/{victim}").pids()
        nspawn = [p for p in pids if of(Path(f"/proc/{p}/cmdline"), name)]
        assert len(nspawn) == 1
        os.kill(nspawn[0], signal.SIGKILL)
    lab("up", "--name", name)
    assert_exactly_running(plan)
    for host in plan.hosts:
        os.kill(Group(f"{name}/{host}/keeper").pids()[0], signal.SIGKILL)
    lab("down", "--name", name)
    assert traces(name) == []
