"""The scheduler alone: pure, with a clock of the test's own."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_app.agent.fair_queue import FairQueue
from agent_app.agent.queue_terms import Charge, Flow, Line, Report, Ruling, Ticket, position, stamp

LEASE = 10.0


@dataclass
class Site:
    """Processes with keys that always want more, before engines with so many places."""

    capacity: int
    processes: int = 1
    length: int = 10_000
    lease: float = 1e9  # only steps that end report here
    queue: FairQueue = field(default_factory=FairQueue)
    now: float = 0.0
    served: Counter[str] = field(default_factory=Counter)
    """Tokens by key."""
    used: Counter[str] = field(default_factory=Counter)
    """Places by process."""
    ends: list[tuple[float, int, Ticket, int]] = field(default_factory=list)
    begun: list[Ticket] = field(default_factory=list)
    refused: list[Ticket] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    size: Callable[[str, int], int] = lambda key, number: 100

    def report(self, process: str, **what: object) -> Ruling:
        used = self.used[process]
        report = Report(
            process,
            self.lease,
            self.capacity,
            self.length,
            held=used,
            used=used,
            **what,  # type: ignore[arg-type]
        )
        ruling, woken = self.queue.turn(report, self.now)
        if not ruling.known:
            return self.report(process, **what, afresh=True)
        self.obey(ruling)
        for other in woken:
            self.report(other)
        return ruling

    def obey(self, ruling: Ruling) -> None:
        for ticket, _ in ruling.granted:
            self.used[ticket.process] += 1
            self.begun.append(ticket)
            size = self.size(ticket.key, ticket.number)
            heapq.heappush(self.ends, (self.now + size / 100, ticket.number, ticket, size))
        self.refused.extend(ruling.refused)

    def want(self, key: str, count: int, *, weight: int = 1, cost: int = 100) -> None:
        for _ in range(count):
            number = next(self.numbers)
            process = f"p{number % self.processes}"
            ticket = Ticket(key, stamp(self.now), process, number, weight, cost)
            self.report(process, joins=(ticket,))

    def run(self, seconds: float, *, again: bool = True) -> None:
        """Let steps end; with `again` each is followed by another of its key."""
        until = self.now + seconds
        while self.ends and self.ends[0][0] <= until:
            self.now, _, ticket, size = heapq.heappop(self.ends)
            self.served[ticket.key] += size
            self.used[ticket.process] -= 1
            rest = Charge(Flow(ticket.key, ticket.weight), size - ticket.cost)
            number = next(self.numbers)
            next_one = Ticket(
                ticket.key, stamp(self.now), ticket.process, number, ticket.weight, ticket.cost
            )
            self.report(ticket.process, charges=(rest,), joins=(next_one,) if again else ())
        self.now = until


def ratio(served: Counter[str], weights: dict[str, int]) -> float:
    shares = [served[key] / weight for key, weight in weights.items()]
    return max(shares) / min(shares)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_a_greedy_key_gets_what_the_others_get(processes: int) -> None:
    site = Site(capacity=24, processes=processes)
    site.want("greedy", 140)
    site.want("b", 30)
    site.want("c", 30)
    site.run(20)
    site.served.clear()
    site.run(200)
    assert ratio(site.served, {"greedy": 1, "b": 1, "c": 1}) < 1.02
    assert sum(site.served.values()) == pytest.approx(24 * 100 * 200, rel=0.01)  # none is idle


def test_long_answers_count_as_what_they_are() -> None:
    site = Site(capacity=8, size=lambda key, number: 1000 if key == "long" else 50)
    site.want("long", 40)
    site.want("short", 40)
    site.run(100)
    site.served.clear()
    site.run(2000)
    assert ratio(site.served, {"long": 1, "short": 1}) < 1.05


@given(
    weights=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    capacity=st.integers(1, 12),
    processes=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_shares_follow_weights_whatever_sizes_and_estimates(
    weights: list[int], capacity: int, processes: int, seed: int
) -> None:
    chance = random.Random(seed)
    site = Site(capacity, processes, size=lambda key, number: chance.randint(10, 400))
    names = {f"k{n}": weight for n, weight in enumerate(weights)}
    for name, weight in names.items():
        site.want(
            name, capacity + chance.randint(1, 20), weight=weight, cost=chance.randint(1, 400)
        )
    site.run(30)
    site.served.clear()
    site.run(800)
    # Each key is off by what is under way at its places, and by a step for its weight.
    slack = 1.05 + 2 * 400 * (capacity + 1) * len(weights) / sum(site.served.values())
    assert ratio(site.served, names) < slack


def test_an_idle_key_returns_at_the_current_minimum() -> None:
    site = Site(capacity=4)
    site.want("busy", 20)
    site.run(100)
    before = site.served["busy"]
    site.want("back", 20)
    site.served.clear()
    site.run(100)
    assert before > 30_000
    # Had its idle time been saved up, it would have had all places for a hundred seconds.
    assert site.served["busy"] == pytest.approx(site.served["back"], rel=0.05)


def test_a_key_that_used_idle_engines_alone_is_not_punished_for_it() -> None:
    site = Site(capacity=4)
    site.want("early", 3)  # below capacity: nobody waits, nobody is kept from anything
    site.run(100)
    site.want("late", 20)
    site.want("early", 20)
    site.served.clear()
    site.run(100)
    assert site.served["early"] == pytest.approx(site.served["late"], rel=0.06)


def test_a_light_key_saves_nothing_up_while_it_is_light() -> None:
    site = Site(capacity=4)
    site.want("heavy", 20)
    site.want("light", 1)  # a quarter of the places at most, for long
    site.run(200)
    site.want("light", 20)
    site.served.clear()
    site.run(100)
    assert site.served["heavy"] == pytest.approx(site.served["light"], rel=0.06)


def test_nobody_starves_beside_keys_that_come_and_go() -> None:
    site = Site(capacity=1)
    site.want("old", 1)
    site.want("old", 1)
    waits = next(ticket for ticket in site.queue._waiting["old"])
    for n in range(100):
        site.want(f"guest{n % 5}", 1)
        site.run(1, again=False)
        if waits in site.begun:
            break
    assert n <= 10  # each of the five was before it twice: once behind it, once level with it


def test_a_full_queue_gives_way_at_the_cost_of_the_longest_line() -> None:
    site = Site(capacity=1, length=10)
    site.want("greedy", 30)
    assert len(site.refused) == 19
    site.want("small", 2)
    assert {ticket.key for ticket in site.refused} == {"greedy"}
    assert len(site.refused) == 21
    site.want("greedy", 1)
    assert len(site.refused) == 22


def test_tickets_of_a_dead_process_and_its_places_come_free_within_its_lease() -> None:
    site = Site(capacity=2, processes=2, lease=LEASE)
    site.want("a", 6)
    assert site.used == {"p0": 1, "p1": 1}
    site.now += LEASE + 0.1  # p1 is silent for that long
    site.ends = [end for end in site.ends if end[2].process == "p0"]
    site.report("p0")
    assert site.used["p0"] == 2
    assert {ticket.process for tickets in site.queue._waiting.values() for ticket in tickets} == {
        "p0"
    }
    ruling, _ = site.queue.turn(Report("p1", LEASE, 2, 10, held=1, used=1), site.now)
    assert not ruling.known


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_places_are_never_more_than_there_are_and_none_is_idle_while_steps_wait(data) -> None:
    capacity = data.draw(st.integers(1, 5))
    site = Site(capacity, processes=3)
    for _ in range(data.draw(st.integers(1, 40))):
        if data.draw(st.booleans()):
            site.want(data.draw(st.sampled_from("abc")), data.draw(st.integers(1, 3)))
        else:
            site.run(data.draw(st.floats(0.1, 3)), again=data.draw(st.booleans()))
        for name in [f"p{n}" for n in range(3)]:
            site.report(name)
        used, waiting = sum(site.used.values()), sum(map(len, site.queue._waiting.values()))
        assert used <= capacity
        assert not waiting or used == capacity


def test_reserves_are_handed_out_when_all_is_quiet_and_asked_back_when_others_wait() -> None:
    queue = FairQueue()
    first, _ = queue.turn(Report("p0", LEASE, 8, 10, held=0, used=0, afresh=True), 0.0)
    second, _ = queue.turn(Report("p1", LEASE, 8, 10, held=0, used=0, afresh=True), 0.0)
    assert (first.spare, second.spare) == (4, 1)
    tickets = tuple(Ticket("a", stamp(0), "p1", n, 1, 10) for n in range(5))
    ruling, woken = queue.turn(Report("p1", LEASE, 8, 10, held=0, used=0, joins=tickets), 0.0)
    assert len(ruling.granted) == 4
    assert woken == {"p0"}
    _, woken = queue.turn(Report("p0", LEASE, 8, 10, held=0, used=0), 0.0)
    assert woken == {"p1"}  # its fifth step has a place now


def test_positions_take_turns_between_keys() -> None:
    lines = {"a": Line(100.0, 1, 3), "b": Line(100.0, 1, 2), "c": Line(250.0, 2, 1)}
    assert [position("a", rank, lines, cost=100) for rank in range(3)] == [1, 3, 6]
    assert [position("b", rank, lines, cost=100) for rank in range(2)] == [2, 4]
    assert position("c", 0, lines, cost=100) == 5


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_positions_are_the_order_in_which_steps_of_that_cost_begin(data) -> None:
    site = Site(capacity=1)
    site.want("first", 1)
    for key in "abc":
        weight = data.draw(st.sampled_from([1, 2, 4]))
        site.want(key, data.draw(st.integers(0, 6)), weight=weight)
    tickets = [ticket for line in site.queue._waiting.values() for ticket in line]
    ruling = site.report("p0", asks=tuple(tickets))
    told = {
        ticket: position(ticket.key, rank, ruling.lines, cost=100)
        for ticket, rank in ruling.ranks.items()
    }
    site.run(1000, again=False)
    assert sorted(told, key=lambda ticket: told[ticket]) == site.begun[1:]
    assert sorted(told.values()) == list(range(1, len(tickets) + 1))
