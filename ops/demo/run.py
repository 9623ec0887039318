"""Tell the whole demonstration, from lab to last line."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.demo.chat import Chat, KeyRefusedError
from ops.demo.prepare import ensure_key, ingest_knowledge
from ops.errors import OpsError
from ops.fleet import Fleet, load
from ops.lab.paths import LabPaths, write_atomically
from ops.live.watch import survey
from ops.playbook.provision import provision
from ops.verify.trust import lab_root

QUESTION = "How do I upgrade a model without downtime?"


def run_demo(console: Console, lab: str) -> None:
    """Boot, provision, ask, and say what there is now.

    Args:
        console: where to tell it.
        lab: name of the lab; a larger one of the operator's is kept as it is.

    Raises:
        OpsError: a part failed, or the answer came without its tool call.
    """
    seconds: dict[str, float] = {}
    paths = LabPaths(lab)
    with part(console, seconds, "lab", "A host of its own on this machine"):
        boot(console, lab)
    fleet = load(paths.inventory)
    with part(console, seconds, "site.yml", "The whole stack on it, over SSH"):
        # A checkout that moved on may have another demo model: the demo follows it.
        follow = ["-e", "engine_accept_restart=true"]
        progress = provision(paths.inventory, console, follow)
    with part(console, seconds, "knowledge and key", "Something to know, and a key to ask with"):
        count = ingest_knowledge(fleet)
        key = ensure_key(fleet, paths.root / "demo_key")
        console.print(f"{count} documents, key in {paths.root / 'demo_key'}")
    with part(console, seconds, "question", f"A question, through https://{fleet.domain}"):
        roots = lab_root(lab)
        write_atomically(paths.root / "demo_root.pem", roots)
        edge = fleet.first("edge")
        try:
            ask(console, Chat(edge.address, fleet.domain, roots, key))
        except KeyRefusedError:  # the host was reset since
            key = ensure_key(fleet, paths.root / "demo_key", renew=True)
            ask(console, Chat(edge.address, fleet.domain, roots, key))
    epilogue(console, fleet, paths, seconds, progress.changed)


@contextmanager
def part(console: Console, seconds: dict[str, float], name: str, title: str) -> Iterator[None]:
    """Print a heading and keep the time of what follows."""
    console.print(f"\n== {title}", style="bold")
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def boot(console: Console, lab: str) -> None:
    """Bring the lab up; one host where there was none."""
    from ops.lab import reconcile
    from ops.lab.commands import require_lab_tools
    from ops.lab.fleet_plan import load_plan

    require_lab_tools()
    size = None if load_plan(lab) else 1
    plan = reconcile.up(lab, size, None, lambda line: console.print(line, markup=False))
    console.print(f"{', '.join(plan.hosts)} up; inventory {os.path.relpath(plan.paths.inventory)}")


def ask(console: Console, chat: Chat) -> None:
    """Print a conversation as it streams; the tool call stands out."""
    console.print(f"you    {QUESTION}", style="cyan")
    began, tools, words = time.monotonic(), 0, 0
    first: float | None = None
    for event, data in chat.stream(QUESTION):
        if event == "tool":
            tools += show_tool(console, data)
        elif event == "token":
            if not words:
                first = time.monotonic() - began
                console.print("agent  ", style="green", end="")
            words += 1
            console.out(str(data.get("text", "")), end="", highlight=False)
            console.file.flush()
        elif event == "retract":
            console.print("\n       (the engine failed: the answer begins anew)", style="yellow")
        elif event == "error":
            raise OpsError(
                f"the app reports: {data.get('message', data)}",
                place=chat.domain,
                cure="ops lab ssh node1 -- journalctl -u 'agent_app@*' -n 50",
            )
    console.print()
    if not tools or not words:
        raise OpsError(
            f"the answer came with {tools} tool calls and {words} pieces of text",
            place=chat.domain,
            cure="ops verify -i inventories/lab",
        )
    spent = time.monotonic() - began
    console.print(
        f"       first words after {first or 0:.2f} s, all after {spent:.2f} s; "
        "a demo model that learned a few dialogues by heart, served by real vLLM",
        style="dim",
    )


def show_tool(console: Console, data: dict[str, object]) -> int:
    """Print the start or the end of a tool call; returns 1 for an end."""
    if data.get("phase") == "start":
        console.print(Text(f"tool   {data.get('name')} {data.get('arguments')}", style="magenta"))
        return 0
    lines = str(data.get("result", "")).splitlines()
    console.print(Text(f"       {lines[0][:90] if lines else ''} ...", style="magenta"))
    return 1


def epilogue(
    console: Console, fleet: Fleet, paths: LabPaths, seconds: dict[str, float], changed: int
) -> None:
    """Say what runs where, how long each part took, and what to try next."""
    console.print("\n== What runs where", style="bold")
    for state in survey(fleet).hosts:
        console.print(f"{state.host} ({state.address}): {', '.join(sorted(state.units))}")
    console.print("\n== How long it took", style="bold")
    times = Table(box=None, pad_edge=False, show_header=False)
    for name, spent in seconds.items():
        times.add_row(name, f"{spent:6.1f} s")
    times.add_row("all", f"{sum(seconds.values()):6.1f} s, {changed} changes on the hosts")
    console.print(times)
    console.print("\n== What to try next", style="bold")
    for line in suggestions(fleet, paths):
        console.print(line, markup=False, soft_wrap=True)


def suggestions(fleet: Fleet, paths: LabPaths) -> list[str]:
    """Commands that work after the demo, ready to paste."""
    edge = fleet.first("edge")
    ops, root = ".venv/bin/ops", paths.root
    inventory = os.path.relpath(paths.inventory)
    named = "" if paths.name == "lab" else f" --name {paths.name}"
    return [
        f"curl -N --cacert {root}/demo_root.pem --resolve {fleet.domain}:443:{edge.address} "
        f"-H \"Authorization: Bearer $(cat {root}/demo_key)\" -H 'Content-Type: application/json' "
        f'-d \'{{"message": "What is Rackhand?"}}\' https://{fleet.domain}/chat',
        f"{ops} verify -i {inventory}      # prove that the host is what the inventory says",
        f"{ops} status -i {inventory}      # hosts, models, slots, units",
        f"{ops} lab ssh{named} {fleet.hosts[0].name}             # look around",
        f"{ops} lab down{named}                  # end it; nothing of it stays",
    ]
