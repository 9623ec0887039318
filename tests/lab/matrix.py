"""Run a cell of the matrix of faults: strike, wait for recovery, judge by what is promised."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cells import CLIENTS, Cell
from invariants import (
    Vitals,
    assert_every_effect_is_there_once,
    assert_nothing_acknowledged_is_lost,
    assert_state_and_inventory_agree,
    recovered,
    vitals,
)
from moments import Moment, moment
from operators import ops
from orders import Orders, forget, ordering, teach_engines
from results import add_to_result, result_path
from revisions import Revisions
from stack import Lab, Stack
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from traffic import Traffic, traffic

TICKETS = "agent_app_tools: {tickets: {}}\n"
QUIET, AFTER = 20, 30
"""Requests before the fault, and after all is well again."""
SECONDS_IN_FLIGHT = 1.0
"""What began so shortly before a fault, or while it struck, was under way then."""
HEADINGS = (
    "hosts", "fault", "target", "moment", "beside it", "requests", "lost under way",
    "failed later", "turns interrupted", "of", "recovered in", "bound", "the work", "judged",
)  # fmt: skip


@dataclass
class Watch:
    """What was seen of a cell."""

    cell: Cell
    running: Traffic | None = None
    orders: Orders | None = None
    struck: float = 0.0
    begun: float = 0.0
    healed: float = float("inf")
    recovered_in: float = 0.0
    work: str = ""
    judged: str = "broken"
    why: list[str] = field(default_factory=list)

    def failures(self) -> tuple[list[str], list[str]]:
        """Requests that failed: those under way as the fault struck, and those that came later."""
        answers = self.running.answers if self.running else []
        failed = [answer for answer in answers if answer.why]
        end = self.begun + SECONDS_IN_FLIGHT
        return (
            [answer.why for answer in failed if answer.began <= end],
            [answer.why for answer in failed if answer.began > end],
        )

    def row(self, hosts: int) -> tuple[str, ...]:
        """Return the row of the result."""
        cell, (flying, later) = self.cell, self.failures()
        orders = self.orders
        return (
            str(hosts), cell.fault, cell.target, cell.moment, cell.stands,
            str(len(self.running.answers) if self.running else 0),
            str(len(flying)), str(len(later)),
            str(orders.interruptions if orders else 0), str(len(orders.orders) if orders else 0),
            f"{self.recovered_in:.1f} s", f"{cell.bound:.0f} s", self.work, self.judged,
        )  # fmt: skip


@contextlib.contextmanager
def matrix_stack(labs: Callable[..., Lab], hosts: int) -> Iterator[Stack]:
    """A stack whose engines answer orders by a call of a tool."""
    with stand_in_stack(labs, hosts=hosts, more=TICKETS) as made:
        ops(made, "chaos", "end", "all")  # what a run that was cut left
        teach_engines(made)
        yield made
        ops(made, "chaos", "end", "all")
        forget(made)


@contextlib.contextmanager
def load(stack: Stack, watch: Watch, wanted: bool) -> Iterator[None]:
    """Have clients ask and order meanwhile."""
    if not wanted:
        yield
        return
    with traffic(stack, clients=CLIENTS) as running, ordering(stack) as orders:
        watch.running, watch.orders = running, orders
        running.wait_for(QUIET)
        yield


def strike(stack: Stack, watch: Watch, before: Vitals) -> None:
    """Inject, hold, end, and wait until all is as before."""
    cell = watch.cell
    watch.struck = time.monotonic()
    ops(stack, "chaos", "inject", cell.fault, cell.target, *cell.more)
    since = watch.begun = time.monotonic()
    if cell.hold:
        time.sleep(cell.hold)
        if cell.fault != "cert-expired":
            ops(stack, "chaos", "end", cell.fault)
            since = time.monotonic()
        else:  # the timer's own service renews what has expired; nobody else ends it
            stack.lab.ssh("node1", "systemctl start certbot.service", check=False)
    watch.recovered_in = recovered(stack, before, since, cell.bound)


def judge(watch: Watch) -> None:
    """Hold what clients saw against what is promised."""
    cell, (flying, later) = watch.cell, watch.failures()
    assert watch.running is None or len(watch.running.answers) >= QUIET
    if cell.flying is None:
        watch.judged = f"survived; requests out of promise: {cell.stands}"
        return
    assert len(flying) <= cell.flying, flying
    assert later == [], later
    watch.judged = "survived"


def run(stack: Stack, revisions: Revisions, cell: Cell) -> None:
    """Run a cell and write its row, whatever becomes of it."""
    watch = Watch(cell)
    hosts = len(stack.fleet.hosts)
    before = vitals(stack)
    try:
        with _at(stack, revisions, watch) as at:
            strike(stack, watch, before)
            at.finish()
            watch.work = at.told
            if watch.running:
                watch.running.mark("after")
                watch.running.wait_for(AFTER)
        if watch.orders:
            orders = watch.orders.orders
            assert watch.orders.acknowledged, [order.interrupted[-1:] for order in orders]
            assert_nothing_acknowledged_is_lost(stack, watch.orders.acknowledged)
            assert_every_effect_is_there_once(stack, orders)
            assert [order for order in orders if not order.done] == []
        ops(stack, "chaos", "end", "all")
        assert_state_and_inventory_agree(stack, _agrees(cell))
        judge(watch)
    except KeyboardInterrupt:
        watch.judged = ""  # it was not run
        raise
    except BaseException as problem:
        words = " ".join((str(problem) or repr(problem)).split())
        watch.judged = f"broken: {words[:160]}".replace("|", "/")
        raise
    finally:
        if watch.judged:
            write(watch.row(hosts))
        ops(stack, "chaos", "end", "all", status=None)


@contextlib.contextmanager
def _at(stack: Stack, revisions: Revisions, watch: Watch) -> Iterator[Moment]:
    with (
        load(stack, watch, watch.cell.moment != "idle"),
        moment(watch.cell.moment, stack, revisions) as at,
    ):
        yield at


def _agrees(cell: Cell) -> Callable[[Stack], None]:
    """After an operator's work, all of site.yml; else its check of what a fault can touch."""
    if cell.moment in ("idle", "load"):
        return lambda stack: None
    return assert_site_changes_nothing


NAME = "fault-matrix"
KEY = 4


def tally(row: tuple[str, ...]) -> str:
    """Count today's cells, this one with them."""
    path = result_path(NAME)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    told = [tuple(line[2:-2].split(" | ")) for line in lines if line.startswith("| ")][1:]
    cells = [*(found for found in told if found[:KEY] != row[:KEY]), row]
    survived = sum(found[-1].startswith("survived") for found in cells)
    requests = sum(int(found[5]) for found in cells)
    return f"{len(cells)} cells run, {survived} survived; {requests} requests."


NOTES = """\
`ops chaos` strikes; then nobody helps but, after an operator's work, `ops resume` or the next
`site.yml`. Four clients ask through the edge, two more order: each of their turns opens a ticket,
and is resumed until it is done.

- Survived: every answer of which a client heard the end is in its thread in PostgreSQL, each ticket
  is there once, all units and engines are as before within the bound, no operation is open, and
  after an operator's work `site.yml` changes nothing.
- Lost under way: requests that had begun when the fault struck, or within a second. Failed later:
  those that began after; none where a second instance stands.
- Recovered in: from the return of `ops chaos`, which comes a second or two after the strike or its
  end, until a look at all of it that found it well was over.
- The stand-in engine starts in a second. Power: the page cache is the lab machine's and survives,
  so this shows no loss of unsynced writes. An expired certificate is renewed by the service that
  certbot's timer starts, started here by hand.
"""


def write(row: tuple[str, ...]) -> None:
    add_to_result(NAME, "Faults at moments", HEADINGS, [row], f"{tally(row)}\n\n{NOTES}", key=KEY)
