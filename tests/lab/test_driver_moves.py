"""`ops driver` on a fleet that serves: two GPU hosts move one after the other, no request fails.

The engine is the stand-in: four hosts with two real ones would not fit this machine's memory.
"""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import pytest
from stack import STAND_IN, Lab, Stack, run_site
from traffic import at_work

from ops.demo.prepare import ensure_key
from ops.lab.fleet_plan import require_plan
from ops.places import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.long]

GPU_HOSTS = ("node2", "node4")
PACE_SECONDS = 0.25  # between requests; the edge takes ten a second from one address
MESSAGES = [{"role": "user", "content": "Hello!"}]
QUESTION = {"model": "demo", "messages": MESSAGES, "max_tokens": 40}  # 0.4 s of the stand-in's pace


@dataclass
class Load:
    """Requests of one client after another, and what became of them."""

    stack: Stack
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        context = ssl.create_default_context(cadata=self.stack.roots)
        address, domain = self.stack.fleet.first("edge").address, self.stack.fleet.domain
        headers = {"Host": domain, "Authorization": f"Bearer {self.stack.key}"}
        with httpx2.Client(
            base_url=f"https://{address}", verify=context, headers=headers, timeout=120
        ) as client:
            while not self.over.is_set():
                self.ask(client, {"sni_hostname": domain})
                time.sleep(PACE_SECONDS)

    def ask(self, client: httpx2.Client, extensions: dict[str, str]) -> None:
        body = {**QUESTION, "stream": len(self.seconds) % 2 == 0}
        began = time.monotonic()
        try:
            answer = client.post("/v1/chat/completions", json=body, extensions=extensions)
        except httpx2.HTTPError as problem:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {problem!r}")
            return
        whole = "data: [DONE]" in answer.text if body["stream"] else '"content"' in answer.text
        if answer.status_code != 200 or not whole:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {answer.status_code} {answer.text}")
        self.seconds.append(time.monotonic() - began)


@contextmanager
def load(stack: Stack) -> Iterator[Load]:
    """Keep two clients busy meanwhile."""
    running = Load(stack)
    with at_work(running.run, running.over, clients=2):
        yield running


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Stack:
    made = Stack(labs(4, "ubuntu-24.04-facade", "H100:1"))
    first = run_site(made.lab, "-e", STAND_IN)
    assert first.status == 0, first.output[-6000:]
    made.key = ensure_key(made.fleet, require_plan(made.lab.name).paths.root / "test_key")
    made.wait_until_ready()
    return made


def driver(stack: Stack, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        ["ops", "driver", *words, "-i", str(stack.lab.inventory)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def loaded(stack: Stack) -> dict[str, str]:
    hosts = json.loads(driver(stack, "status", "--json"))["hosts"]
    assert [host["findings"] for host in hosts] == [[], []]
    return {host["host"]: host["loaded"] for host in hosts}


def boots(stack: Stack) -> dict[str, int]:
    """How often each host has been booted."""
    paths = require_plan(stack.lab.name).paths
    return {
        node: paths.host(node).log.read_text(errors="replace").count("supervisor: the host ended")
        for node in stack.lab.nodes
    }


@pytest.mark.timeout(1500)
def test_a_fleet_moves_to_another_branch_and_back_without_a_failed_request(stack: Stack) -> None:
    before = boots(stack)
    assert set(loaded(stack).values()) == {"580.178.04"}
    plan = json.loads(driver(stack, "plan", "--to", "595", "--json"))["moves"]
    assert [(m["host"], m["to"], m["alone"]) for m in plan] == [
        (host, "595.91.07", []) for host in GPU_HOSTS
    ]
    assert boots(stack) == before
    with load(stack) as traffic:
        said = driver(stack, "upgrade", "--to", "595", "--yes")
        assert loaded(stack) == dict.fromkeys(GPU_HOSTS, "595.91.07"), said
        again = run_site(stack.lab, "-e", STAND_IN)
        assert (again.status, again.total("changed")) == (0, 0), again.output[-4000:]
        driver(stack, "rollback", "--yes")
        assert loaded(stack) == dict.fromkeys(GPU_HOSTS, "580.178.04")
    assert traffic.failures == []
    assert len(traffic.seconds) > 100, traffic.seconds
    expected = {node: before[node] + (2 if node in GPU_HOSTS else 0) for node in before}
    assert boots(stack) == expected, "each move reboots each GPU host once, and no other host"


@pytest.mark.timeout(600)
def test_a_refused_move_leaves_every_host_in_traffic(stack: Stack) -> None:
    before = boots(stack)
    with load(stack) as traffic:
        said = driver(stack, "upgrade", "--to", "570", "--yes", status=1)
    assert "580" in said  # 570 is a stub that would move to it
    assert traffic.failures == []
    assert boots(stack) == before
    for host in GPU_HOSTS:
        assert stack.lab.ssh(host, "ls -d /var/lib/rackhand/drained || echo serves") == "serves"
