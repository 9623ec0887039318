"""Every way of moving and restarting under thousands of requests: none fails, and what it costs.

Each test writes its part of docs/results/<date>-upgrade-load.md.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from app_releases import Checkouts
from operators import Said, ops, ops_told
from results import add_to_result
from revisions import Revisions, fact
from stack import Lab, Stack
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from traffic import Traffic, figures, traffic

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

LEAST = 5000
QUIET = 800
"""Requests before the first operation, between two and after the last, each at least."""
CLIENTS = 12
PAUSE = 0.02
QUICK_ENGINE = 'environment={"STAND_IN_TOKENS_PER_SECOND": "300"}'
HEADINGS = (
    "strategy", "while", "took", "requests", "of them streamed", "failed", "cut", "abort",
    "first token, median", "first token, p99", "asked anew",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """A strategy: its hosts, the words of the upgrade, and those of the way back."""

    name: str
    hosts: int
    there: tuple[str, ...]
    back: tuple[str, ...] = ()


WAYS = (
    Way("blue-green", 1, ("--strategy", "blue-green", "--stage-seconds", "5")),
    Way("swap", 1, ("--strategy", "swap"), ("--strategy", "swap")),
    Way("another version of the engine", 1, ("--vllm", "0.32.1", "--stage-seconds", "5")),
    Way("host by host, node4 the canary", 4, ("--canary", "node4", "--stage-seconds", "5")),
)


@pytest.fixture(scope="module")
def stacks_by_hosts(
    labs: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], tuple[Stack, Revisions]]]:
    """A stack of so many hosts whose engines make an answer in a tenth of a second."""
    made: dict[int, tuple[Stack, Revisions]] = {}
    with contextlib.ExitStack() as opened:

        def make(hosts: int) -> tuple[Stack, Revisions]:
            if hosts not in made:
                stack = opened.enter_context(stand_in_stack(labs, hosts=hosts))
                revisions = Revisions(stack, tmp_path_factory.mktemp("weights"))
                words = revisions.next("--set", QUICK_ENGINE, "--shift", "100")
                ops(stack, "model", "upgrade", *words, "--stage-seconds", "0")
                made[hosts] = stack, revisions
            return made[hosts]

        yield make


@pytest.mark.parametrize(
    "way", WAYS, ids=lambda way: way.name.split(",")[0] + ("-blue-green" if way.hosts == 1 else "")
)
def test_upgrade_and_rollback_fail_none_of_thousands_of_requests(
    stacks_by_hosts: Callable[[int], tuple[Stack, Revisions]], way: Way
) -> None:
    stack, revisions = stacks_by_hosts(way.hosts)
    engines = [host.name for host in stack.fleet.group("gpu")]
    before = {host: fact(stack, host)["revision"] for host in engines}
    took: dict[str, Said] = {}
    with traffic(stack, clients=CLIENTS, pause=PAUSE) as running:
        running.mark("before")
        running.wait_for(QUIET)
        running.mark("upgrade")
        took["upgrade"] = ops_told(stack, "model", "upgrade", *revisions.next(*way.there))
        moved = {host: fact(stack, host)["revision"] for host in engines}
        running.mark("between")
        running.wait_for(QUIET)
        running.mark("rollback")
        took["rollback"] = ops_told(stack, "model", "rollback", "demo", "--yes", *way.back)
        running.mark("after")
        running.wait_for(max(QUIET, LEAST - len(running.answers) + QUIET))
    write(way.name, running, took)
    assert all(moved[host] != before[host] for host in engines)
    assert {host: fact(stack, host)["revision"] for host in engines} == before
    whole = figures(running.answers)
    assert (whole.failed, whole.cut, whole.aborted) == (0, 0, 0), running.told()
    assert whole.requests >= LEAST
    assert min(whole.streams, whole.requests - whole.streams) > LEAST // 3
    assert_site_changes_nothing(stack)


RESTARTS = {
    "engine beside the old one": ("restart", "engine", "demo"),
    "engine where it is": ("restart", "engine", "demo", "--strategy", "in-place"),
    "app": ("restart", "app"),
}


def test_restarts_and_deploys_fail_none_of_thousands_of_requests(
    stacks_by_hosts: Callable[[int], tuple[Stack, Revisions]], tmp_path: Path
) -> None:
    stack, _ = stacks_by_hosts(1)
    new = str(Checkouts(tmp_path).next())
    steps = RESTARTS | {
        "deploy": ("app", "deploy", "--version-from", new, "--stage-seconds", "5"),
        "rollback": ("app", "rollback"),
    }
    took: dict[str, Said] = {}
    with traffic(stack, clients=CLIENTS, pause=PAUSE) as running:
        running.mark("before")
        running.wait_for(QUIET)
        for what, words in steps.items():
            running.mark(what)
            took[what] = ops_told(stack, *words, "--yes")
            running.mark(f"after it ({what})")
            running.wait_for(QUIET)
        running.wait_for(max(QUIET, LEAST - len(running.answers) + QUIET))
    write("restarts and deploys", running, took)
    whole = figures(running.answers)
    assert (whole.failed, whole.cut, whole.aborted) == (0, 0, 0), running.told()
    assert whole.requests >= LEAST
    assert_site_changes_nothing(stack)


def write(strategy: str, running: Traffic, took: dict[str, Said]) -> None:
    """Add a strategy's rows to the result: what clients saw, phase by phase and in all."""
    phases = {what: running.after(what) for _, what in running.marks}
    phases["all of it"] = running.answers
    rows = []
    for what, answers in phases.items():
        found = figures(answers)
        rows.append(
            (
                strategy,
                what,
                f"{took[what].took:.1f} s" if what in took else "",
                str(found.requests),
                str(found.streams),
                str(found.failed),
                str(found.cut),
                str(found.aborted),
                f"{found.median * 1000:.0f} ms",
                f"{found.p99 * 1000:.0f} ms",
                str(running.reconnects) if answers is running.answers else "",
            )
        )
    print(running.told())
    add_to_result(
        "upgrade-load",
        "Models moved under load",
        HEADINGS,
        rows,
        f"{CLIENTS} clients ask through the edge, every other request streams. The engine is the "
        "stand-in (20 ms to the first token, 300 tokens/s), which starts in a second; clients, "
        "edge, app, engines and the operator's commands share the cores. A request belongs to the "
        "phase in which it began. While a swap holds requests, their first token comes when the "
        "new engine has loaded. Asked anew: the client took up an idle connection just as nginx "
        "closed it in a reload, no byte of an answer came, and it asked on another, as HTTP/1.1 "
        "(RFC 9112, 9.3.1) has clients do.",
    )
