"""Two processes share the jobs of three keys, one of them greedy."""

import asyncio
import collections
from typing import Any

import pytest
from app_process import AppProcess
from data_servers import PASSWORD
from job_client import submit, until
from scripted_engine import ScriptedEngine, chunk, say

from agent_app.config import Database
from agent_app.state.database import Pool, make_pool
from agent_app.state.job_queue import ClaimedJob, Ended, JobQueue
from agent_app.state.jobs import JobStatus, JobTable, Submission


@pytest.fixture
async def pool(configuration: dict[str, Any]) -> Any:
    made = make_pool(Database(**configuration["database"]), PASSWORD)
    await made.open()
    yield made
    await made.close()


async def test_two_processes_run_sixty_jobs_of_three_keys_once_each_and_in_fair_order(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine, sql
) -> None:
    said = collections.Counter[str]()

    def answer(body: dict[str, Any]) -> list[Any]:
        said[body["messages"][-1]["content"]] += 1
        return say("ok")

    engine.default = answer
    apps = [prepared]
    for name in ("one", "two"):
        folder = prepared.folder / name
        folder.mkdir()
        apps.append(AppProcess(folder, configuration))
    keys = {name: prepared.run("keys", "create", "--name", name) for name in ("greedy", "a", "b")}
    configuration["jobs"] = {"workers": 0}
    doorman = AppProcess(prepared.folder, configuration)  # takes jobs in, works on none
    await doorman.start()
    jobs = []
    for name, count in (("greedy", 40), ("a", 10), ("b", 10)):
        for n in range(count):
            jobs.append((await submit(doorman, f"{name} {n}", keys[name]), keys[name]))
    await asyncio.gather(*(app.start() for app in apps[1:]))
    for job, key in jobs:
        found = await until(doorman, job, key=key, seconds=60)
        assert (found["status"], found["attempt"]) == ("done", 1)
    assert set(said.values()) == {1}
    assert len(said) == 60
    assert sql.execute("SELECT count(*), max(attempt) FROM app.runs").fetchone() == (60, 1)
    order = [
        name
        for (name,) in sql.execute(
            "SELECT name FROM app.jobs JOIN app.api_keys ON api_keys.id = key_id"
            " ORDER BY jobs.started_at"
        ).fetchall()
    ]
    print("".join(name[0] for name in order))
    # While all three wait each has a third of the starts, but for those it missed by a slow job.
    assert collections.Counter(order[:30])["greedy"] <= 13
    assert order[:15].count("a") in range(3, 8)
    both = sql.execute("SELECT count(DISTINCT owner) FROM app.runs").fetchone()
    assert both == (2,)
    for app in [*apps, doorman]:
        if app.process is not None:
            await app.kill()
        await app.client.aclose()


async def make_keys(sql: Any, *names: str) -> list[Any]:
    return [
        sql.execute(
            "INSERT INTO app.api_keys (name, prefix, digest) VALUES (%s, 'rh_', %s) RETURNING id",
            (name, name),
        ).fetchone()[0]
        for name in names
    ]


def wanted(key_id: Any, message: str = "Work.") -> Submission:
    return Submission(key_id, message, (), "demo", "", "test-0001", None, None, None)


async def end(queue: JobQueue, sql: Any, job: Any, tokens: int) -> None:
    """End a claimed job as one whose run used so many tokens."""
    sql.execute("INSERT INTO app.threads (id, key_id) VALUES (%s, %s)", (job.thread_id, job.key_id))
    sql.execute(
        "INSERT INTO app.runs (id, thread_id, correlation_id, model, message, status, owner,"
        " lease_until, completion_tokens) VALUES (%s, %s, '', 'demo', '', 'done', '', now(), %s)",
        (job.id, job.thread_id, tokens),
    )
    assert await queue.let_go(job, Ended(JobStatus.DONE))


async def test_turns_are_weighed_by_tokens_and_an_idle_key_has_no_credit(pool: Pool, sql) -> None:
    table, queue = JobTable(pool), JobQueue(pool, owner="test", lease_seconds=60)
    heavy, light, late = await make_keys(sql, "heavy", "light", "late")
    for key in (heavy, light):
        for _ in range(60):
            await table.submit(wanted(key), most_queued=0)
    served: collections.Counter[Any] = collections.Counter()
    starts: collections.Counter[Any] = collections.Counter()
    cost = {heavy: 6000, light: 1500, late: 1500}

    async def work(times: int) -> None:
        for _ in range(times):
            job = await queue.claim(per_key=9)
            assert job is not None
            served[job.key_id] += cost[job.key_id]
            starts[job.key_id] += 1
            await end(queue, sql, job, cost[job.key_id])

    await work(50)
    assert starts[light] / starts[heavy] == pytest.approx(4, abs=0.5)
    assert served[light] / served[heavy] == pytest.approx(1, abs=0.15)
    # A key that was away all this time gets its turn at once, but not all of them.
    for _ in range(30):
        await table.submit(wanted(late), most_queued=0)
    served.clear()
    await work(30)
    print({"heavy": served[heavy], "light": served[light], "late": served[late]})
    assert max(served.values()) / min(served.values()) < 1.7  # within one heavy job of each other


async def test_a_key_whose_job_took_long_gets_the_turns_it_missed(pool: Pool, sql) -> None:
    """A start is charged much more than a small job uses; that must not cost the key its turns."""
    table, queue = JobTable(pool), JobQueue(pool, owner="test", lease_seconds=60)
    keys = await make_keys(sql, "one", "other")
    for key in keys:
        for _ in range(30):
            await table.submit(wanted(key), most_queued=0)
    starts: collections.Counter[Any] = collections.Counter()

    async def claim() -> ClaimedJob:
        job = await queue.claim(per_key=9)
        assert job is not None
        starts[job.key_id] += 1
        return job

    long = await claim()
    for _ in range(10):
        job = await claim()
        assert job.key_id != long.key_id
        await end(queue, sql, job, 20)
    await end(queue, sql, long, 20)
    for _ in range(19):
        await end(queue, sql, await claim(), 20)
    assert sorted(starts.values()) == [15, 15]


async def test_claims_at_once_hold_the_bound_of_each_key(pool: Pool, sql) -> None:
    table = JobTable(pool)
    queues = [JobQueue(pool, owner=f"test-{n}", lease_seconds=60) for n in range(12)]
    for key in await make_keys(sql, "a", "b"):
        for _ in range(10):
            await table.submit(wanted(key), most_queued=0)
    claims = [job for job in await asyncio.gather(*(q.claim(per_key=3) for q in queues)) if job]
    assert len({job.id for job in claims}) == 6
    assert sorted(collections.Counter(job.key_id for job in claims).values()) == [3, 3]
    assert await queues[0].claim(per_key=3) is None


async def test_an_attempt_that_lost_its_lease_cannot_end_the_job_of_its_successor(
    pool: Pool, sql
) -> None:
    table = JobTable(pool)
    slow, quick = (JobQueue(pool, owner=name, lease_seconds=60) for name in ("slow", "quick"))
    (key,) = await make_keys(sql, "a")
    await table.submit(wanted(key), most_queued=0)
    first = await slow.claim(per_key=1)
    assert first is not None
    assert await quick.expired() == []
    sql.execute("UPDATE app.jobs SET lease_until = now(), status = 'queued'")
    second = await quick.claim(per_key=1)
    assert second is not None
    assert second.attempt == 2
    assert not await slow.let_go(first, Ended(JobStatus.DONE, result={"content": "stale"}))
    assert await slow.renew([(first.id, first.attempt)]) == {}
    assert not await slow.let_go(second, Ended(JobStatus.FAILED), expired=True)
    assert await quick.let_go(second, Ended(JobStatus.DONE, result={"content": "fresh"}))
    assert sql.execute("SELECT result->>'content' FROM app.jobs").fetchone() == ("fresh",)


async def test_a_slow_stream_of_a_job_leaves_chat_alone(
    prepared: AppProcess, engine: ScriptedEngine
) -> None:
    """Two workers are the default: jobs beyond wait, and chat does not wait for them."""
    await prepared.start()
    engine.default = lambda body: (
        say("chat") if "chat" in body["messages"][-1]["content"]
        else [*(chunk({"content": "."}) for _ in range(20_000))]
    )  # fmt: skip
    for n in range(6):
        await submit(prepared, f"job {n}")
    await asyncio.sleep(0.3)
    assert engine.in_flight <= 2
    assert (await prepared.chat("chat")).text() == "chat"
