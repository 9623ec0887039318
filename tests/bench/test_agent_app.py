"""What the agent app adds to the engine, beside LiteLLM's proxy and the common recipe.

One run, one engine, candidates interleaved in rounds; the process between has a core of its own,
engine, databases and client have the rest. `RACKHAND_BENCH_ROUNDS` (5) says how many rounds,
`RACKHAND_BENCH_ENGINE=vllm` takes real vLLM with the demo model instead of the stand-in.
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from candidates import APP_CORE, MOST_TOKENS, Candidate, direct, litellm, ours, recipe
from data_servers import Postgres, RedisServer
from results import write_result
from streams import Measured, measure

from tests.contract.engines import started

ENGINE = os.environ.get("RACKHAND_BENCH_ENGINE", "stand-in")
ROUNDS = int(os.environ.get("RACKHAND_BENCH_ROUNDS", "5"))
ASKS, STREAMS, EACH = 20, 4, 3
FIRST_TOKEN_MS, TOKENS_PER_SECOND = 20, 150
SHORT, LONG = "What is Rackhand?", "Tell me about Rackhand"
AIM_ADDED_SECONDS, MOST_ADDED_SECONDS = 0.005, 0.010
AIM_RATIO, LEAST_RATIO = 5.0, 3.5
"""What is aimed at, told beside what was measured; and what no change may fall behind."""

pytestmark = pytest.mark.bench


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not under pytest's folder: any other pytest of this user closes that one to the postgres user.
    with tempfile.TemporaryDirectory(prefix="rackhand-bench-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def away_from_the_apps_core() -> Iterator[None]:
    """Leave one core to what is measured; what we start from here inherits that."""
    before = os.sched_getaffinity(0)
    if rest := before - {APP_CORE}:
        os.sched_setaffinity(0, rest)
    yield
    os.sched_setaffinity(0, before)


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[str]:
    """The engine; the stand-in says as many words as it may, at a fixed pace."""
    more: tuple[str, ...] = ("--max-num-seqs", "16")
    if ENGINE == "stand-in":
        script = folder / "script.yml"
        words = " ".join(f"word{number}" for number in range(MOST_TOKENS - 6))
        script.write_text(
            f"answers: [{{match: '{SHORT[:-1]}', text: Rackhand is this and that.}},"
            f" {{match: '{LONG}', text: {words}}}]\n"
        )
        more += ("--script", str(script), "--first-token-ms", str(FIRST_TOKEN_MS))
        more += ("--tokens-per-second", str(TOKENS_PER_SECOND))
    with started(ENGINE, folder, *more) as running:
        yield running.url


@contextlib.contextmanager
def candidates(folder: Path) -> Iterator[list[Candidate]]:
    with contextlib.ExitStack() as stack:
        (folder / "postgres").mkdir()
        postgres = Postgres(folder / "postgres")
        stack.callback(postgres.stop)
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        url = stack.enter_context(engine(folder))
        yield [
            direct(url),
            *stack.enter_context(ours(url, folder, postgres, redis)),
            *stack.enter_context(litellm(url, folder)),
            *stack.enter_context(recipe(url, folder, postgres)),
        ]


async def rounds(found: list[Candidate]) -> dict[str, Measured]:
    measured = {candidate.name: Measured() for candidate in found}
    for number in range(ROUNDS):
        for place in range(len(found)):  # each begins a round in its turn
            candidate = found[(place + number) % len(found)]
            await measure(
                candidate, measured[candidate.name], short=SHORT, long=LONG,
                asks=ASKS, streams=STREAMS, each=EACH,
            )  # fmt: skip
    return measured


def added(measured: dict[str, Measured], name: str) -> list[float]:
    """First-token seconds over the engine's own, round by round."""
    floor = measured["engine direct"].first_token
    return [ours - own for ours, own in zip(measured[name].first_token, floor, strict=True)]


def spread(values: list[float], unit: float) -> str:
    middle = statistics.median(values) * unit
    return f"{middle:.1f} ({min(values) * unit:.1f} to {max(values) * unit:.1f})"


def aims(measured: dict[str, Measured], cpu: dict[str, float], peers: dict[str, str]) -> str:
    """Say how each of ours stands to what is aimed at."""
    told = [f"Aims: {AIM_ADDED_SECONDS * 1e3:.0f} ms added, CPU {AIM_RATIO:.0f} times below."]
    for name, peer in peers.items():
        more, ratio = statistics.median(added(measured, name)), cpu[peer] / cpu[name]
        met = more <= AIM_ADDED_SECONDS and ratio >= AIM_RATIO
        told.append(
            f"{name}: {more * 1e3:.1f} ms, {ratio:.1f} times below the {peer}:"
            f" {'met' if met else 'short of it'}."
        )
    return " ".join(told)


def test_the_app_adds_milliseconds_and_a_part_of_the_recipes_cpu(folder: Path) -> None:
    with candidates(folder) as found:
        measured = asyncio.run(rounds(found))
    cpu = {name: statistics.median(m.cpu) for name, m in measured.items()}
    ours_ = {name: value for name, value in cpu.items() if name.startswith("agent app")}
    peers = {"agent app, /v1": "LangChain recipe"}
    peers["agent app, /chat on a thread"] = "LangChain recipe on a thread"
    rows = []
    for name, m in measured.items():
        between = name != "engine direct"
        rows.append(
            (
                name,
                spread(m.first_token, 1e3),
                spread(added(measured, name), 1e3) if between else "-",
                spread(m.cpu, 1e6) if between else "-",
                f"{cpu[name] / ours_['agent app, /v1']:.1f}" if between else "-",
            )
        )
    write_result(
        f"agent-app-{ENGINE}",
        f"What stands before the engine ({ENGINE})",
        ("way", "first token, ms", "added, ms", "CPU per token, µs", "CPU / agent app's /v1"),
        rows,
        f"{ROUNDS} rounds, interleaved: median (lowest to highest round). First token: {ASKS} "
        f"requests one after another in each round. CPU: user and kernel time of the process "
        f"between, over {STREAMS} streams side by side of {EACH} answers each, requests "
        "included. It has a core of its own; engine, PostgreSQL, Redis and client share the rest. "
        "Each is one process. LiteLLM 1.106.0, without a database; the recipe is FastAPI with "
        "LangChain's create_agent and ChatOpenAI under astream_events, its thread in the same "
        "PostgreSQL. The app checks keys in PostgreSQL and writes usage there; the recipe has no "
        f"keys. The engine makes {TOKENS_PER_SECOND} tokens a second in each stream where it is "
        "the stand-in; the app reads streams as fast as that every 33 ms, which spares it CPU and "
        "which the others do not do. " + aims(measured, cpu, peers),
    )
    for name, peer in peers.items():
        assert statistics.median(added(measured, name)) <= MOST_ADDED_SECONDS, name
        assert cpu[peer] / cpu[name] >= LEAST_RATIO, f"{name}: {cpu}"
