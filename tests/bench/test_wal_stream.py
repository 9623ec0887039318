"""What a commit costs that waits for a second host's disk, beside one that waits for its own."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lone_lab import lone_lab
from results import write_result
from stack import Stack, until
from stand_in_stack import stand_in_stack

pytestmark = [pytest.mark.bench, pytest.mark.timeout(2400)]

CLIENTS = (1, 8, 32)
ROUNDS = 7
SECONDS = 4
DATA, RECEIVER = "node3", "node2"
GUARD, RECEIVES = "rackhand-wal-guard.service", "rackhand-wal-receiver.service"
SYNCHRONOUS = (
    "SELECT count(*) FROM pg_stat_replication "
    "WHERE application_name = 'rackhand_wal' AND sync_state = 'sync'"
)
TABLE = "CREATE TABLE commits (at timestamptz DEFAULT now(), words text)"
INSERT = "INSERT INTO commits (words) VALUES (repeat('w', 200))"
FOLDER = "/var/lib/postgresql/bench"
# pgbench tells the rate; each commit's microseconds stand in its logs.
COMMIT = rf"""
cd {FOLDER} && rm -f log.* && sudo -u postgres PGOPTIONS='-c synchronous_commit={{waits}}' \
  "$(ls -d /usr/lib/postgresql/*/bin)"/pgbench -n -f insert.sql -c {{clients}} -T {SECONDS} \
  -l --log-prefix=log bench >said && sed -n 's/^tps = \([0-9.]*\).*/\1/p' said \
  && awk '{{{{print $3}}}}' log.*
"""


@dataclass(frozen=True)
class Way:
    """How commits are made durable.

    Attributes:
        name: In the table.
        streamed: Whether they wait for the second host.
        waits: PostgreSQL's synchronous_commit of the clients.
    """

    name: str
    streamed: bool
    waits: str


OFF = Way("`wal_stream_enabled: false`: this disk", False, "on")
ON = Way("`wal_stream_enabled: true`: both disks", True, "on")
ASYNC = Way("`synchronous_commit=off`: no disk", False, "off")
WAYS = (OFF, ON, ASYNC)


@dataclass(frozen=True)
class Figures:
    """Of one run of pgbench: commits per second, and milliseconds until they were acknowledged."""

    rate: float
    p50: float
    p99: float


Runs = dict[tuple[Way, int], list[Figures]]


@pytest.fixture
def stack() -> Iterator[Stack]:
    more = "wal_stream_enabled: true\n"
    with lone_lab("bench-wal") as boot, stand_in_stack(boot, hosts=3, more=more) as made:
        yield made


def is_synchronous(stack: Stack) -> bool:
    return stack.sql(SYNCHRONOUS) == "1"


def stream(stack: Stack, wanted: bool) -> None:
    """Leave both hosts as the role does with and without wal_stream_enabled."""
    verb = "start" if wanted else "stop"
    stack.lab.ssh(RECEIVER, f"systemctl {verb} {RECEIVES}")
    stack.lab.ssh(DATA, f"systemctl {verb} {GUARD}")
    until(lambda: is_synchronous(stack) == wanted, 60)
    names = stack.sql("SHOW synchronous_standby_names")
    assert names == ("rackhand_wal" if wanted else ""), names


def commit(stack: Stack, way: Way, clients: int) -> Figures:
    """Commit for some seconds, and see that the way was the same from first to last."""
    said = stack.lab.ssh(DATA, COMMIT.format(waits=way.waits, clients=clients))
    assert is_synchronous(stack) == way.streamed
    rate, *spent = (float(word) for word in said.split())
    cuts = statistics.quantiles(spent, n=100)
    return Figures(rate, cuts[49] / 1e3, cuts[98] / 1e3)


def test_a_commit_that_waits_for_a_second_disk_beside_one_that_does_not(stack: Stack) -> None:
    for make in ("createdb bench", f"psql -qd bench -c '{TABLE}'", f"mkdir {FOLDER}"):
        stack.lab.ssh(DATA, f"cd / && sudo -u postgres {make}")
    stack.lab.ssh(DATA, f'echo "{INSERT}" >{FOLDER}/insert.sql')
    runs: Runs = {(way, clients): [] for way in WAYS for clients in CLIENTS}
    for turn in range(ROUNDS):
        # Each way comes first, second and last in turn, so that none pays for what drifts.
        for way in (*WAYS[turn % 3 :], *WAYS[: turn % 3]):
            stream(stack, way.streamed)
            commit(stack, way, 8)  # warm, not counted
            for clients in CLIENTS:
                runs[way, clients].append(commit(stack, way, clients))
    write(runs)
    for clients in CLIENTS:
        assert beside(runs, ON, clients, "rate") > 0.25, "streaming costs more than the docs say"


def beside(runs: Runs, way: Way, clients: int, figure: str) -> float:
    """A way's figure by OFF's of the same round: the median of rounds."""
    pairs = zip(runs[way, clients], runs[OFF, clients], strict=True)
    return statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in pairs)


def write(runs: Runs) -> None:
    rows = []
    for clients in CLIENTS:
        for way in WAYS:
            found = [
                (statistics.median(getattr(run, figure) for run in runs[way, clients]),
                 beside(runs, way, clients, figure))
                for figure in ("rate", "p50", "p99")
            ]  # fmt: skip
            (rate, rates), (p50, p50s), (p99, p99s) = found
            rows.append(
                (str(clients), way.name, f"{rate:.0f}", f"{rates:.2f}", f"{p50:.2f} ms",
                 f"{p50s:.2f}", f"{p99:.2f} ms", f"{p99s:.2f}")
            )  # fmt: skip
    write_result(
        "wal-stream",
        "What a commit costs that waits for a second host's disk",
        (
            "clients",
            "a commit counts when it is on",
            "commits/s",
            "ratio",
            "p50",
            "ratio",
            "p99",
            "ratio",
        ),
        rows,
        "A fleet of three lab hosts, PostgreSQL on one, the repository on another; pgbench on the "
        f"data host's socket, an INSERT of 200 bytes a commit, {SECONDS} s a run, {ROUNDS} rounds "
        "in which the ways take turns. Ratios to the first row of as many clients: medians of the "
        "rounds' own. Both hosts share one disk and two cores, so that each fsync waits for the "
        "other's too, which hosts of their own do not; their round trip is that of a bridge.",
    )
