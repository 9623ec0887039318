"""An engine under load: its queue, its metrics, and clients that hang up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.engines import SEATS, Engine
from tests.contract.test_answers import HELLO, ask, asked, stream

RECORDED = Path(__file__).parent / "recorded" / "vllm-0.32-metrics.txt"
WATCHED = {  # what rules, dashboards, the drain and the planner read
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
    *("vllm:num_requests_waiting_by_reason", "vllm:prompt_tokens", "vllm:generation_tokens"),
    *("vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:num_preemptions"),
    *("vllm:request_success", "vllm:time_to_first_token_seconds"),
    *("vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds"),
    *("vllm:request_queue_time_seconds", "vllm:iteration_tokens_total"),
}
PATIENCE = 40.0  # seconds; what is no part of the contract may be slow on a busy machine
LONG = asked(HELLO, max_tokens=6000, ignore_eos=True)


def families(page: str) -> dict[str, tuple[str, set[frozenset[str]]]]:
    """Type and label names of each metric of vLLM's on a page."""
    return {
        family.name: (
            family.type,
            {
                frozenset(sample.labels)
                for sample in family.samples
                if not sample.name.endswith("_created")
            },
        )
        for family in text_string_to_metric_families(page)
        if family.name.startswith("vllm:")
    }


async def page(engine: Engine) -> str:
    async with engine.client() as client:
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return response.text


async def values(engine: Engine) -> dict[str, float]:
    """Every sample without a bucket, summed over labels, and by reason where it has one."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(await page(engine)):
        for sample in family.samples:
            reason = sample.labels.get("finished_reason")
            name = sample.name.removeprefix("vllm:") + (f":{reason}" if reason else "")
            found[name] = found.get(name, 0.0) + sample.value
    return found


async def until(engine: Engine, seconds: float, **wanted: float) -> float:
    """Wait until gauges have the wanted values; how long it took.

    A look that takes long counts as a second: while the machine stands still nothing can change.
    """
    began, spent = time.monotonic(), 0.0
    while True:
        looked = time.monotonic()
        now = await values(engine)
        seen = {name: now[name] for name in wanted}
        if seen == wanted:
            return time.monotonic() - began
        assert spent < seconds, f"{seen}, not {wanted} after {seconds} s"
        await asyncio.sleep(0.02)
        spent += min(time.monotonic() - looked, 1.0)


async def test_its_metrics_have_vllms_names_types_and_labels(engine: Engine) -> None:
    await ask(engine, asked(HELLO))
    found, recorded = families(await page(engine)), families(RECORDED.read_text())
    assert set(found) >= WATCHED
    assert {name: found[name] for name in found if found[name] != recorded.get(name)} == {}


async def test_its_metrics_count_what_was_done(engine: Engine) -> None:
    before = await values(engine)
    usage = (await ask(engine, asked(HELLO, max_tokens=7, ignore_eos=True)))["usage"]
    await until(engine, 5, num_requests_running=0)
    after = await values(engine)
    grown = {name: after[name] - before[name] for name in before if after[name] != before[name]}
    assert grown["prompt_tokens_total"] == usage["prompt_tokens"]
    assert grown["generation_tokens_total"] == 7
    assert grown["request_success_total:length"] == 1
    assert grown["time_to_first_token_seconds_count"] == 1
    assert grown["inter_token_latency_seconds_count"] == 6
    assert grown["e2e_request_latency_seconds_count"] == 1
    assert grown["request_generation_tokens_sum"] == 7


async def test_more_requests_than_seats_wait_and_are_counted(unhurried: Engine) -> None:
    tasks = [asyncio.create_task(ask(unhurried, LONG)) for _ in range(SEATS + 2)]
    try:
        await until(unhurried, PATIENCE, num_requests_running=SEATS, num_requests_waiting=2)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await until(unhurried, PATIENCE, num_requests_running=0, num_requests_waiting=0)


@pytest.mark.parametrize("how", [ask, stream], ids=["whole", "streamed"])
async def test_a_client_that_hangs_up_stops_the_generation(unhurried: Engine, how: Any) -> None:
    made = asyncio.create_task(how(unhurried, LONG))
    await until(unhurried, PATIENCE, num_requests_running=1)
    made.cancel()
    await asyncio.gather(made, return_exceptions=True)
    assert await until(unhurried, 2, num_requests_running=0) < 2
    before = await values(unhurried)
    await asyncio.sleep(0.3)
    after = await values(unhurried)
    assert after["generation_tokens_total"] == before["generation_tokens_total"]
