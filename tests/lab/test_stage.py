"""`ops model stage` and `prune` on two engine hosts: fetched once, spread, killed, pruned."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from operators import ops, ops_until
from stack import Lab, Stack, run_site, shell
from traffic import traffic

from ops.demo.prepare import ensure_key
from ops.lab.fleet_plan import require_plan
from ops.models.inventory import wanted_entry

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

LONG = pytest.mark.long
GPUS = ("node2", "node3")
SETTINGS = {
    "group_vars/gpu.yml": "---\nengine_kind: stand_in\nengine_environment: stand-in\n"
    "engine_find_links: [/srv/wheelhouse]\n",
    "group_vars/edge.yml": "---\nnginx_requests_per_second: 1000\nnginx_request_burst: 200\n"
    "nginx_connections: 200\n",
    "second_gpu.yml": "---\nall:\n  children:\n    gpu: {hosts: {node3: {}}}\n",
}
PADDING = 100 * 2**20
"""Makes a revision large enough to be caught on its way."""


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    made = Stack(labs(3, "trixie"))
    for name, text in SETTINGS.items():
        (made.lab.inventory / name).write_text(text)
    all_vars = made.lab.inventory / "group_vars/all.yml"
    before = all_vars.read_text()
    first = run_site(made.lab, "-e", "engine_accept_restart=true")
    assert first.status == 0, first.output[-6000:]
    made.key = ensure_key(made.fleet, require_plan(made.lab.name).paths.root / "test_key")
    made.wait_until_ready()
    yield made
    for name in SETTINGS:
        (made.lab.inventory / name).unlink()
    all_vars.write_text(before)


@pytest.fixture(scope="module")
def source(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model's weights, with something large beside them."""
    folder = wanted_entry(stack.lab.inventory, "demo")["source"].removeprefix("file://")
    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("weights") / "demo"))
    with (copy / "padding.bin").open("wb") as stream:
        for number in range(PADDING // 2**20):
            stream.write(bytes([number % 251]) * 2**20)
    return f"file://{copy}"


def look(stack: Stack, host: str) -> dict[str, str]:
    """What must not change while a revision is staged."""
    return {
        command: stack.lab.ssh(host, command)
        for command in (
            "cat /etc/ansible/facts.d/engine.fact",
            "sha256sum /etc/engine/*.env /etc/nginx/engine_proxy.d/* | sort",
            "systemctl show -p MainPID,ActiveEnterTimestamp 'engine@*.service' nginx.service",
        )
    }


def revisions(stack: Stack, host: str) -> list[str]:
    return stack.lab.ssh(host, "ls /srv/models/demo").split()


def manifests(stack: Stack, revision: str) -> list[str]:
    path = f"/srv/models/demo/{revision}"
    checks = f"cd {path} && sha256sum .manifest.json && sha256sum config.json padding.bin"
    return [stack.lab.ssh(host, checks) for host in GPUS]


def assert_clean(stack: Stack) -> None:
    """No server and no token is left on either host."""
    for host in GPUS:
        units = stack.lab.ssh(host, "systemctl list-units --all --no-legend 'rackhand-weights*'")
        assert units == ""
        assert stack.lab.ssh(host, "ls -d /run/rackhand-weights 2>/dev/null | wc -l") == "0"


def stage(revision: str, source: str, *more: str) -> tuple[str, ...]:
    return ("model", "stage", "demo", "--to", revision, "--source", source, "--yes", *more)


def test_a_revision_is_sent_once_and_spread_while_nothing_else_changes(
    stack: Stack, source: str
) -> None:
    before = {host: look(stack, host) for host in GPUS}
    plan = json.loads(ops(stack, *stage("r1", source, "--dry-run", "--json")).output)
    assert [step["kind"] for step in plan["steps"]] == [
        "weights.room", "weights.fetch", "weights.spread", "weights.fetch"
    ]  # fmt: skip
    with traffic(stack) as running:
        ops(stack, *stage("r1", source))
    assert running.failures == [], running.told()
    assert len(set(manifests(stack, "r1"))) == 1
    assert {host: look(stack, host) for host in GPUS} == before
    assert_clean(stack)
    again = run_site(stack.lab, "--diff")
    assert (again.status, again.total("changed")) == (0, 0), again.output[-5000:]


def test_the_upgrade_finds_what_was_staged(stack: Stack, source: str) -> None:
    ops(stack, *stage("r1", source))
    words = ("model", "upgrade", "demo", "--to", "r1", "--source", "peer", "--yes", "--shift",
             "100", "--stage-seconds", "0")  # fmt: skip
    plan = json.loads(ops(stack, *words, "--dry-run", "--json").output)
    assert not any(step["kind"].startswith("weights.") for step in plan["steps"])
    with traffic(stack) as running:
        ops(stack, *words)
    assert running.failures == [], running.told()
    assert wanted_entry(stack.lab.inventory, "demo")["revision"] == "r1"


def test_peers_alone_give_it_to_a_host_that_lost_it(stack: Stack, source: str) -> None:
    ops(stack, *stage("r2", source, "--limit", "node2"))
    assert "r2" not in revisions(stack, "node3")
    ops(stack, *stage("r2", "peer"))
    assert len(set(manifests(stack, "r2"))) == 1
    assert_clean(stack)
    refused = ops(stack, *stage("r-nowhere", "peer"), status=2)
    assert "no host has demo r-nowhere to give" in refused.output


@pytest.fixture
def slow_line(stack: Stack) -> Iterator[None]:
    """Have the server of node2 take its time, so that there is a middle."""
    folder = "/run/systemd/system/rackhand-weights.service.d"
    slow = f"mkdir -p {folder} && printf '[Service]\\nCPUQuota=4%%\\n' > {folder}/slow.conf"
    stack.lab.ssh("node2", f"{slow} && systemctl daemon-reload")
    yield
    stack.lab.ssh("node2", f"rm -r {folder} && systemctl daemon-reload")


@pytest.mark.parametrize(
    "victim", ["operator", *(pytest.param(name, marks=LONG) for name in ("server", "fetcher"))]
)
@pytest.mark.usefixtures("slow_line")
def test_whoever_is_killed_while_it_spreads_a_rerun_goes_on(
    stack: Stack, source: str, victim: str
) -> None:
    revision = f"killed-{victim}"
    kills = {
        "server": ("node2", "systemctl kill -s KILL rackhand-weights.service"),
        "fetcher": ("node3", "pkill -KILL -f '[o]ps.weights.program'"),
    }
    part = f"stat -c %s /srv/models/demo/{revision}.staging/padding.bin 2>/dev/null || echo 0"
    caught: list[int] = []

    def dies(event: dict[str, Any]) -> bool:
        if event.get("kind") != "weights.spread" or event["event"] != "begin":
            return False
        with shell(stack.lab, "node3") as there, shell(stack.lab, "node2") as source_host:
            end = time.monotonic() + 60
            while not (size := int(there.ask(part))) and time.monotonic() < end:
                time.sleep(0.02)
            if victim in kills:
                host, command = kills[victim]
                (there if host == "node3" else source_host).ask(command)
            caught.append(size)
        return victim == "operator"

    said = ops_until(stack, *stage(revision, source), dies=dies)
    if victim == "operator":
        assert said.status == -9
        assert f"left an operation unfinished: {said.id}" in ops(
            stack, *stage("r9", source), status=1
        ).output  # fmt: skip
        ops(stack, "resume")
    elif said.status:  # a fetcher that was killed has no other source: the same command goes on
        ops(stack, *stage(revision, source))
    assert 0 < caught[0] < PADDING, "it was not caught on its way"
    assert len(set(manifests(stack, revision))) == 1
    assert_clean(stack)


def test_a_host_without_room_is_named_and_nothing_moves(stack: Stack, source: str) -> None:
    stack.lab.ssh("node3", "mount -t tmpfs -o size=1050m tmpfs /srv/models")
    try:
        refused = ops(stack, *stage("r-full", source), status=1)
    finally:
        stack.lab.ssh("node3", "umount /srv/models")
    assert "node3 has 1.0 GiB free" in refused.output
    assert "nothing was fetched" in refused.output
    assert not any(name.startswith("r-full") for host in GPUS for name in revisions(stack, host))


def test_old_revisions_go_and_what_is_needed_stays(stack: Stack, source: str) -> None:
    ops(stack, *stage("newest", source))
    stack.lab.ssh("node2", "mkdir -p /srv/models/demo/being.staging /opt/vllm/unused")
    stack.lab.ssh("node2", "touch /opt/vllm/unused/.complete -d '2 days ago'")
    facts = [json.loads(look(stack, h)["cat /etc/ansible/facts.d/engine.fact"]) for h in GPUS]
    needed = {fact["models"]["demo"]["revision"] for fact in facts}
    needed |= {fact["models"]["demo"]["standby"].get("revision", "") for fact in facts}
    dry = ops(stack, "model", "prune", "--dry-run", "--keep", "1")
    assert "stays: it serves" in dry.output
    assert "frees" in dry.output
    with traffic(stack) as running:
        ops(stack, "model", "prune", "--keep", "0", "--yes", "--limit", "node2")
        ops(stack, "model", "prune", "demo", "--yes")
    assert running.failures == [], running.told()
    assert set(revisions(stack, "node2")) == {*needed, "being.staging"} - {""}
    assert set(revisions(stack, "node3")) == {*needed, "newest"} - {""}
    assert "unused" not in stack.lab.ssh("node2", "ls /opt/vllm").split()
    assert "stand-in" in stack.lab.ssh("node2", "ls /opt/vllm").split()
    ops(stack, "model", "rollback", "demo", "--yes")
    stack.wait_until_ready()
