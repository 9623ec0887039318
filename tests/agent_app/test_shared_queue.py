"""The script in Redis rules as the pure queue does, over random histories of three processes."""

import random
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis
from data_servers import PASSWORD, RedisServer

from agent_app.agent.fair_queue import FairQueue
from agent_app.agent.queue_terms import Charge, Flow, Report, Ruling, Ticket, stamp
from agent_app.agent.shared_queue import SharedQueue

KEYS = ("a", "b", "c", "d")
PROCESSES = ("host:1", "host:2", "host:3")


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.Redis]:
    client = redis.Redis(port=redis_server.port, db=1, password=PASSWORD)
    await client.flushdb()
    yield client
    await client.aclose()


class History:
    """Reports such as three processes would make, some of them forgetful."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.used = dict.fromkeys(PROCESSES, 0)
        self.waiting: dict[str, list[Ticket]] = {name: [] for name in PROCESSES}
        self.number = 0
        self.strange = set(PROCESSES)
        self.now = 1_000.0

    def next(self) -> Report:
        chance = self.chance
        self.now += chance.choice([0.001, 0.2, 3.0])
        process = chance.choice(PROCESSES)
        ended = chance.randint(0, self.used[process])
        self.used[process] -= ended
        gone = [ticket for ticket in self.waiting[process] if chance.random() < 0.1]
        afresh = chance.random() < (0.8 if process in self.strange else 0.05)
        joins = [self.ticket(process) for _ in range(chance.choice([0, 0, 1, 3]))]
        self.waiting[process] = [t for t in self.waiting[process] if t not in gone] + joins
        charges = [
            Charge(Flow(key, chance.randint(1, 3)), chance.randint(-50, 200), chance.randint(0, 2))
            for key in chance.sample(KEYS, chance.randint(0, 2))
        ]
        return Report(
            process,
            lease_seconds=0 if chance.random() < 0.03 else 5,
            capacity=chance.randint(1, 6),
            length=8,
            held=self.used[process] + chance.randint(0, 2),
            used=self.used[process],
            joins=tuple(self.waiting[process] if afresh else joins),
            gone=tuple(gone),
            charges=tuple(charges),
            asks=tuple(self.waiting[process]),
            afresh=afresh,
        )

    def ticket(self, process: str) -> Ticket:
        self.number += 1
        key, cost = self.chance.choice(KEYS), self.chance.randint(1, 500)
        weight = self.chance.randint(1, 3)
        return Ticket(key, stamp(self.now), process, self.number, weight, cost)

    def learn(self, report: Report, ruling: Ruling) -> None:
        process = report.process
        over = {ticket for ticket, _ in ruling.granted} | set(ruling.refused)
        self.used[process] += len(ruling.granted)
        self.waiting[process] = [t for t in self.waiting[process] if t not in over]
        self.strange.discard(process)
        if not ruling.known or report.lease_seconds == 0:
            self.strange.add(process)


@pytest.mark.parametrize("seed", range(8))
async def test_redis_rules_as_the_pure_queue_does(client: redis.Redis, seed: int) -> None:
    shared, pure, history = SharedQueue(client, "demo", "host:1"), FairQueue(), History(seed)
    seen = {"granted": 0, "refused": 0, "unknown": 0, "spare": 0, "ranks": 0}
    for step in range(300):
        report = history.next()
        told = await shared.turn(report, history.now)
        expected, _ = pure.turn(report, history.now)
        assert told == expected, f"step {step} of {seed}"
        history.learn(report, expected)
        seen["granted"] += len(expected.granted)
        seen["refused"] += len(expected.refused)
        seen["unknown"] += not expected.known
        seen["spare"] += expected.spare
        seen["ranks"] += len(expected.ranks)
    assert all(seen.values()), seen


async def test_nothing_is_left_in_redis_but_what_expires(client: redis.Redis) -> None:
    shared = SharedQueue(client, "demo", "p")
    ticket = Ticket("a", stamp(0), "p", 1, 1, 10)
    await shared.turn(Report("p", 5, 1, 10, held=1, used=1, joins=(ticket,), afresh=True))
    names = [name async for name in client.scan_iter("*")]
    assert names
    assert all([0 < await client.ttl(name) <= 3600 for name in names])
    await shared.turn(Report("p", 0, 1, 10, held=0, used=0, afresh=True))
    assert await client.zcard("queue:{demo}:waiting") == 0
