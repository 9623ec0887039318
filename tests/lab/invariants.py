"""What must hold after a fault, whatever it was: one place for all cells of the matrix."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
from operators import ops
from orders import Order
from stack import Stack

from ops.chaos.perform import shell
from ops.chaos.step import Shell
from ops.errors import OpsError
from ops.lab.fleet_plan import LabPlan, require_plan

WATCHED = "'agent_app@*' 'nginx*' 'postgresql@*' 'redis-server@*' 'prometheus*' 'rackhand-*.timer'"
#: The host's own engines answer at the slot that its fact names as active.
ENGINES = """\
import json, pathlib, urllib.request
path = pathlib.Path("/etc/ansible/facts.d/engine.fact")
models = json.loads(path.read_text())["models"] if path.exists() else {}
for index, name in enumerate(models):
    port = 8100 + 2 * index + ("blue", "green").index(models[name]["active"])
    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=3).read()
"""
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Vitals:
    """The units that were active before the fault, by host."""

    plan: LabPlan
    active: dict[str, frozenset[str]]


def vitals(stack: Stack) -> Vitals:
    """Look at all hosts, which must be well."""
    plan = require_plan(stack.lab.name)
    return Vitals(plan, {host.name: _active(plan, host.name) for host in stack.fleet.hosts})


def _active(plan: LabPlan, host: str) -> frozenset[str]:
    look = f"systemctl list-units --plain --no-legend --state=active {WATCHED} | cut -d' ' -f1"
    return frozenset(shell(plan, Shell(host, look)).split())


def ailing(stack: Stack, before: Vitals) -> str:
    """What is not as before: the first of it, or nothing."""
    plan = before.plan

    def look(host: str) -> str:
        try:
            missing = before.active[host] - _active(plan, host)
            if missing:
                return f"{host}: {' '.join(sorted(missing))} not active"
            shell(plan, Shell(host, "python3 -", ENGINES))
        except OpsError as problem:
            return f"{host}: {problem.message[-200:]}"
        return ""

    with ThreadPoolExecutor(len(before.active)) as pool:
        found = next(filter(None, pool.map(look, before.active)), "")
    return found or _served(stack)


def _served(stack: Stack) -> str:
    """Ask the edge for the app's own word, and for an answer."""
    sni = {"sni_hostname": stack.fleet.domain}
    question = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    try:
        with stack.client() as client:
            ready = client.get("/ready", extensions=sni, timeout=5)
            if ready.status_code != 200:
                return f"/ready: {ready.text[:200]}"
            answer = client.post("/v1/chat/completions", json=question, extensions=sni, timeout=20)
    except httpx2.HTTPError as problem:
        return repr(problem)
    return "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"


def recovered(stack: Stack, before: Vitals, since: float, bound: float) -> float:
    """Return the seconds until all is as before by itself; fail beyond the bound."""
    while True:
        why = ailing(stack, before)  # may itself wait for a host that boots
        waited = time.monotonic() - since
        if not why:
            return waited
        assert waited < bound, f"not well {waited:.0f} s after the fault: {why}"
        time.sleep(POLL_SECONDS)


def assert_nothing_acknowledged_is_lost(stack: Stack, orders: list[Order]) -> None:
    """Each answer of which a client heard the end is in its thread, once, as it was heard."""
    sni = {"sni_hostname": stack.fleet.domain}
    with stack.client() as client:
        for order in orders:
            told = client.get(f"/threads/{order.thread}", extensions=sni)
            assert told.status_code == 200, f"{order}: {told.text}"
            said = [
                (m["role"], m["content"])
                for m in told.json()["messages"]
                if m["role"] != "tool" and m["content"]
            ]
            assert said == [
                ("user", f"Order {order.thread}"),
                ("assistant", order.done),
            ], f"{order}: {said}"


def assert_every_effect_is_there_once(stack: Stack, orders: list[Order]) -> None:
    """A ticket for each acknowledged order, and no more than one for any."""
    rows = stack.sql("SELECT thread_id, count(*) FROM app.tickets GROUP BY thread_id").split()
    tickets = {thread: int(count) for thread, count in (row.split("|") for row in rows)}
    double = {o.thread: tickets[o.thread] for o in orders if tickets.get(o.thread, 0) > 1}
    assert not double, double
    lost = [o for o in orders if o.done and not tickets.get(o.thread)]
    assert not lost, lost


def assert_state_and_inventory_agree(stack: Stack, check: Callable[[Stack], None]) -> None:
    """No operation is open, no fault is left, every host answers `ops status`, and `check` holds.

    Args:
        stack: The fleet.
        check: Compares the hosts with the inventory: a run of site.yml that changes nothing.
    """
    told = json.loads(ops(stack, "history", "--json").output)["operations"]
    assert not [found for found in told if found["status"] in ("running", "unfinished", "stuck")]
    faults = json.loads(ops(stack, "chaos", "list", "--json").output)
    assert faults["now"] == [], faults
    ops(stack, "status", "--json")
    check(stack)
