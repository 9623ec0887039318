"""`ops status` and `ops top` on a fleet that serves, is being upgraded, and loses a host.

The engine is the stand-in, so that a start takes a second.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from operators import ops, ops_until
from stack import Lab, Stack
from stand_in_stack import stand_in_stack
from traffic import traffic

from ops.models.inventory import wanted_entry
from ops.places import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SECONDS = 120


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    """Two hosts: edge, app and data on node1; engines on node2."""
    with stand_in_stack(labs, hosts=2) as made:
        yield made


def status(stack: Stack, expected: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ops(stack, "status", "--json", status=expected).output)
    return found


def host(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in told["hosts"] if one["host"] == name)


@contextmanager
def top(stack: Stack) -> Iterator[Iterator[dict[str, Any]]]:
    """`ops top --json` as a program reads it."""
    with subprocess.Popen(
        ["ops", "top", "--json", "--every", "1", "-i", str(stack.lab.inventory)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield (json.loads(line) for line in process.stdout)
        process.stdout.close()
        assert process.wait(SECONDS) == 0


def until(looks: Iterator[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> Any:
    end = time.monotonic() + SECONDS
    for told in looks:
        if holds(told):
            return told
        assert time.monotonic() < end, json.dumps(told)[-3000:]
    raise AssertionError("ops top ended")


@pytest.fixture(scope="module")
def weights(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = wanted_entry(stack.lab.inventory, "demo")["source"].removeprefix("file://")
    return Path(shutil.copytree(source, tmp_path_factory.mktemp("weights") / "demo"))


def test_a_fleet_at_rest_is_well_and_told_whole(stack: Stack) -> None:
    told = status(stack)
    assert told["well"]
    assert told["operation"] is None
    edge, gpu = host(told, "node1"), host(told, "node2")
    assert edge["certificate_days"] > 0
    assert {one["state"] for one in edge["app"].values()} == {"active"}
    model = gpu["models"]["demo"]
    active = model["slots"][model["active"]]
    assert (active["state"], active["share"]) == ("active", 100)
    assert active["revision"] == wanted_entry(stack.lab.inventory, "demo")["revision"]
    assert active["environment"].startswith("stand-in")
    for one in told["hosts"]:
        assert one["complaints"] == []
        assert one["memory"]["total"] > one["memory"]["used"] > 0
        assert 0 < one["disks"]["/"]["used"] < one["disks"]["/"]["total"]
        assert one["units"]


def test_top_tells_the_traffic_that_there_is(stack: Stack) -> None:
    with traffic(stack) as running, top(stack) as looks:

        def flows(told: dict[str, Any]) -> bool:
            model = host(told, "node2")["models"]["demo"]
            found = model["slots"][model["active"]]["traffic"]
            return bool(
                (found["requests_per_second"] or 0) > 1
                and (found["tokens_per_second"] or 0) > 1
                and found["first_token_p95_seconds"]
                and found["error_share"] == 0.0
            )

        told = until(looks, flows)
        apps = host(told, "node1")["app"].values()
        assert sum(one["traffic"]["requests_per_second"] or 0 for one in apps) > 0
    assert running.failures == [], running.told()


def test_an_upgrade_is_seen_step_by_step_and_what_is_kept_afterwards(
    stack: Stack, weights: Path
) -> None:
    seen: list[dict[str, Any]] = []

    def look(event: dict[str, Any]) -> bool:
        if event["event"] == "begin" and event.get("kind") == "engine.shift" and not seen:
            seen.append(status(stack))
        return False

    said = ops_until(
        stack, "model", "upgrade", "demo", "--to", "s1", "--source", f"file://{weights}", "--yes",
        "--shift", "50,100", "--stage-seconds", "5", "--keep-minutes", "5", "--why", "to be seen",
        dies=look,
    )  # fmt: skip
    assert said.status == 0, said.output[-3000:]
    operation = seen[0]["operation"]
    assert (operation["status"], operation["why"]) == ("running", "to be seen")
    assert 0 < operation["step"] <= operation["steps"]
    told = status(stack)
    assert told["operation"] is None
    model = host(told, "node2")["models"]["demo"]
    kept = next(slot for name, slot in model["slots"].items() if name != model["active"])
    assert kept["state"] == "active"
    assert 0 < kept["kept_until"] - time.time() < 301
    assert model["slots"][model["active"]]["revision"] == "s1"


def test_an_operation_that_was_left_is_told_and_exits_1(stack: Stack, weights: Path) -> None:
    died = ops_until(
        stack, "model", "upgrade", "demo", "--to", "s2", "--source", f"file://{weights}", "--yes",
        dies=lambda event: event["event"] == "done" and event.get("kind") == "engine.start",
    )  # fmt: skip
    told = status(stack, expected=1)
    assert (told["operation"]["id"], told["operation"]["status"]) == (died.id, "unfinished")
    assert all(one["well"] for one in told["hosts"])
    assert "ops resume goes on" in ops(stack, "top", "--once", status=1).output
    ops(stack, "abort", "--yes")
    assert status(stack)["operation"] is None


def test_what_is_not_well_is_told_with_its_state(stack: Stack) -> None:
    stack.lab.ssh("node2", "echo 'by a test' > /var/lib/rackhand/drained")
    stack.lab.ssh("node1", "systemctl stop certbot.timer")
    told = status(stack, expected=1)
    assert host(told, "node1")["unwell"] == {"certbot.timer": "inactive"}
    assert (host(told, "node2")["drained"], host(told, "node2")["well"]) == ("by a test", True)
    stack.lab.ssh("node1", "systemctl start certbot.timer")
    stack.lab.ssh("node2", "rm /var/lib/rackhand/drained")
    assert status(stack)["well"]


def test_top_outlives_a_host_that_goes_and_comes_back(stack: Stack) -> None:
    with top(stack) as looks:
        until(looks, lambda told: told["well"])
        words = ["ops", "lab", "kill", "--name", stack.lab.name, "node2"]
        subprocess.run(words, cwd=ROOT, stdin=subprocess.DEVNULL, check=True, timeout=SECONDS)
        told = until(looks, lambda told: bool(host(told, "node2")["problem"]))
        assert host(told, "node1")["well"]
        until(looks, lambda told: told["well"])
    processes = stack.lab.ssh("node1", "sleep 1; pgrep -fc '[s]ilence_seconds' || true")
    assert int(processes or 0) == 0, "our program on the host ends with us"
