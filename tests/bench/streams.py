"""A client that measures streams: first token, and what a token costs the process between."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from candidates import Candidate


@dataclass
class Measured:
    """All rounds of one candidate."""

    first_token: list[float] = field(default_factory=list)
    """Median seconds of each round."""
    cpu: list[float] = field(default_factory=list)
    """CPU seconds per token of each round."""
    all_first: list[float] = field(default_factory=list)


async def measure(
    candidate: Candidate,
    into: Measured,
    *,
    short: str,
    long: str,
    asks: int,
    streams: int,
    each: int,
) -> None:
    """Add a round: some requests one after another, then some streams side by side.

    Args:
        candidate: What is measured.
        into: Where it is written.
        short: Has a short answer.
        long: Has a long one.
        asks: Requests for the short one after another, for the first token.
        streams: Streams of the long one side by side, for the CPU.
        each: Requests of each of them.
    """
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:
        await ask(client, candidate, short)  # connections, caches
        first = [(await ask(client, candidate, short))[0] for _ in range(asks)]

        async def talk() -> int:
            return sum([(await ask(client, candidate, long))[1] for _ in range(each)])

        before = cpu_seconds(candidate.pid)
        tokens = sum(await asyncio.gather(*(talk() for _ in range(streams))))
        await asyncio.sleep(0.2)  # what is done after the last word
        spent = cpu_seconds(candidate.pid) - before
    into.first_token.append(statistics.median(first))
    into.all_first.extend(first)
    into.cpu.append(spent / tokens)


async def ask(client: httpx2.AsyncClient, candidate: Candidate, question: str) -> tuple[float, int]:
    """Ask once; return the seconds to the first token, and the number of tokens."""
    began, first, tokens = time.perf_counter(), 0.0, 0
    async with client.stream(
        "POST", candidate.url, json=candidate.body(question), headers=candidate.headers
    ) as response:
        if response.status_code != 200:
            await response.aread()
            raise AssertionError(f"{candidate.name}: {response.status_code} {response.text}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            if candidate.token(json.loads(line[6:])):
                first = first or time.perf_counter() - began
                tokens += 1
    assert tokens > 1, f"{candidate.name} streamed {tokens} tokens"
    return first, tokens


def cpu_seconds(pid: int | None) -> float:
    """CPU time of a process and its children, in user and kernel; 0 of none.

    By the scheduler's own account, in nanoseconds: `/proc/PID/stat` counts in hundredths.
    """
    return 0.0 if pid is None else sum(_nanoseconds(each) for each in _family(pid)) / 1e9


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _nanoseconds(pid: int) -> int:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
