"""What an upgrade takes, step by step, and what the same change costs done by plain means."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lone_lab import lone_lab
from operators import Said, ops_told
from results import write_result
from revisions import Revisions, fact
from stack import Stack
from stand_in_stack import stand_in_stack
from traffic import Traffic, figures, traffic

from ops.fleet.model import SLOTS

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

QUIET = 100
"""Requests before a change and after it."""
PLAIN_PORT = 8090
PLAIN = "/etc/nginx/engine_proxy.d/plain.conf"
PORTS = {"blue": 8100, "green": 8101}
HEALTHY = "timeout 60 sh -c 'until curl -sf http://127.0.0.1:{port}/health; do sleep 0.1; done'"
VLLM_DEFAULT = (
    "sed -i 's/--shutdown-timeout [0-9]*/--shutdown-timeout 0/' /etc/engine/demo-{slot}.env"
)


@pytest.fixture
def stack() -> Iterator[Stack]:
    with lone_lab("bench-upgrade") as boot, stand_in_stack(boot) as made:
        yield made


def test_upgrades_step_by_step_and_beside_plain_means(stack: Stack, tmp_path: Path) -> None:
    revisions = Revisions(stack, tmp_path)
    ways: list[tuple[str, str, Traffic]] = []
    blue_green, load = under_load(
        stack, "model", "upgrade",
        *revisions.next("--strategy", "blue-green", "--stage-seconds", "5"),
    )  # fmt: skip
    ways.append(("ops model upgrade, blue-green", "edge and app", load))
    warm, load = under_load(stack, "model", "rollback", "demo", "--yes")
    ways.append(("ops model rollback, engine kept", "edge and app", load))
    swap, load = under_load(stack, "model", "upgrade", *revisions.next("--strategy", "swap"))
    ways.append(("ops model upgrade, swap", "edge and app", load))
    door = lay_plain_door(stack)
    ways.append(("systemctl restart", "edge and app", restarted(stack, "")))
    ways.append(("systemctl restart", "plain nginx", restarted(stack, door)))
    ways.append(("upstream changed, old engine stopped", "plain nginx", switched(stack, door)))
    write(blue_green, warm, swap, ways)
    ours = [load for way, _, load in ways if way.startswith("ops ")]
    plain = [load for _, where, load in ways if where == "plain nginx"]
    assert [load.failures for load in ours] == [[], [], []]
    assert all(load.failures for load in plain), "the comparison is none: plain means failed none"


def under_load(stack: Stack, *words: str) -> tuple[Said, Traffic]:
    with traffic(stack) as running:
        running.wait_for(QUIET)
        running.mark("change")
        said = ops_told(stack, *words)
        running.wait_for(QUIET)
    return said, running


def active(stack: Stack) -> tuple[str, str]:
    """The slot that serves, and the other."""
    slot = str(fact(stack)["active"])
    return slot, SLOTS[1 - SLOTS.index(slot)]


def lay_plain_door(stack: Stack) -> str:
    """Set up nginx before an engine as most do, and engines that end as vLLM's defaults have it."""
    slot, _ = active(stack)
    stack.lab.ssh("node1", f"{VLLM_DEFAULT}; systemctl restart engine@demo-{slot}")
    stack.lab.ssh("node1", HEALTHY.format(port=PORTS[slot]))
    _serve_plainly(stack, PORTS[slot])
    return f"http://{stack.fleet.first('gpu').address}:{PLAIN_PORT}"


def _serve_plainly(stack: Stack, port: int, stop: str = "") -> None:
    text = (
        f"upstream plain {{ server 127.0.0.1:{port}; }}\\n"
        f"server {{ listen {PLAIN_PORT}; location / "
        "{ proxy_pass http://plain; proxy_buffering off; } }"
    )
    then = f"; systemctl stop engine@demo-{stop}" if stop else ""
    stack.lab.ssh("node1", f"printf '{text}\\n' >{PLAIN}; systemctl reload nginx{then}")


def restarted(stack: Stack, door: str) -> Traffic:
    """Restart the engine where it is, as after an edit of its settings."""
    slot, _ = active(stack)
    with traffic(stack, door=door) as running:
        running.wait_for(QUIET)
        running.mark("change")
        stack.lab.ssh("node1", f"systemctl restart engine@demo-{slot}")
        stack.lab.ssh("node1", HEALTHY.format(port=PORTS[slot]))
        running.wait_for(QUIET)
    return running


def switched(stack: Stack, door: str) -> Traffic:
    """Start the other engine, lead nginx to it, and stop the one of before."""
    old, new = active(stack)
    with traffic(stack, door=door) as running:
        running.wait_for(QUIET)
        running.mark("change")
        stack.lab.ssh("node1", f"systemctl start engine@demo-{new}")
        stack.lab.ssh("node1", HEALTHY.format(port=PORTS[new]))
        _serve_plainly(stack, PORTS[new], stop=old)
        running.wait_for(QUIET)
    return running


def held_seconds(said: Said) -> float:
    """From the moment that a swap holds requests until it lets them in."""
    done = {e["kind"]: float(e["at"]) for e in said.events if e["event"] == "done"}
    return done["engine.release"] - done["engine.hold"]


def write(blue_green: Said, warm: Said, swap: Said, ways: list[tuple[str, str, Traffic]]) -> None:
    operations = {"upgrade, blue-green": blue_green, "rollback, engine kept": warm,
                  "upgrade, swap": swap}  # fmt: skip
    kinds = list(dict.fromkeys(kind for said in operations.values() for kind in said.seconds()))
    rows = [
        (name, f"{said.took:.1f} s",
         *(f"{said.seconds()[kind]:.2f} s" if kind in said.seconds() else "" for kind in kinds))
        for name, said in operations.items()
    ]  # fmt: skip
    switch = warm.seconds()["engine.shift"]
    write_result(
        "upgrade-steps",
        "An upgrade, step by step",
        ("operation", "in all", *kinds),
        rows,
        f"One host, the stand-in engine, under load; blue-green watches four stages of 5 s. "
        f"Switch time, from one engine to the other with nginx's old workers out of new requests: "
        f"{switch:.2f} s. Warm rollback: {warm.took:.1f} s. Held time in the swap: "
        f"{held_seconds(swap):.1f} s.",
    )
    rows = []
    for way, where, load in ways:
        found = figures(load.after("change"))
        longest = max(answer.whole for answer in load.after("change"))
        rows.append(
            (way, where, str(found.requests), str(found.failed), str(found.cut),
             str(found.aborted), f"{longest:.1f} s")
        )  # fmt: skip
    write_result(
        "upgrade-beside-plain-means",
        "The same change by plain means",
        ("change", "clients ask", "requests", "failed", "cut", "abort", "longest answer"),
        rows,
        "The same clients and engine in the same run; requests that began with the change or "
        "after it. Plain nginx leads to the engine itself, without the app, and the engine ends as "
        "vLLM's defaults have it (--shutdown-timeout 0).",
    )
