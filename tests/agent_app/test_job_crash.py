"""SIGKILL at every interesting point of a job; then it is done as if nothing had been."""

import asyncio
from typing import Any

import pytest
from app_process import AppProcess
from data_servers import Postgres
from job_client import open_ticket, read, submit, until
from scripted_engine import Hold, ScriptedEngine, chunk, say
from webhook_receiver import Receiver, arrived

CLAIMED = "just claimed, its run not begun"
MID_STREAM = "in mid-stream"
BEFORE_EFFECT = "in the tool, before its effect"
AFTER_EFFECT = "in the tool, after its effect"
IN_ANSWER = "in mid-stream of the answer"
RUN_OVER = "between the end of the run and that of the job"
POINTS = [CLAIMED, MID_STREAM, BEFORE_EFFECT, AFTER_EFFECT, IN_ANSWER, RUN_OVER]

# A lock that stops the process at the point, and what to see in the database when it is there.
LOCKS = {
    CLAIMED: ("app.threads IN EXCLUSIVE", "SELECT status = 'running' FROM app.jobs"),
    BEFORE_EFFECT: ("app.tool_effects IN ACCESS EXCLUSIVE", None),
    AFTER_EFFECT: ("app.tool_effects IN SHARE", "SELECT count(*) = 1 FROM app.tickets"),
    RUN_OVER: ("app.jobs IN SHARE", "SELECT status = 'done' FROM app.runs"),
}
QUESTION = "Report the fan."
ANSWER = "Reported."


@pytest.fixture
def receiver(configuration: dict[str, Any]) -> Receiver:
    made = Receiver()
    configuration["tools"] = {"tickets": {}}
    configuration["jobs"] = {"webhook_hosts": ["127.0.0.1"]}
    configuration["limits"]["lease_seconds"] = 3
    return made


@pytest.fixture
async def app(receiver: Receiver, prepared: AppProcess) -> AppProcess:
    (prepared.folder / "credentials" / "webhook_secret").write_text("hook-secret")
    await prepared.start()
    return prepared


def first_life(point: str, hold: Hold) -> list[list[Any]]:
    return {
        MID_STREAM: [[chunk({"content": "Let me "}), hold]],
        IN_ANSWER: [open_ticket(), [chunk({"content": "Repo"}), hold]],
    }.get(point, [open_ticket(), say(ANSWER)])


def second_life(point: str) -> list[list[Any]]:
    again = point in (CLAIMED, MID_STREAM)
    return [open_ticket(), say(ANSWER)] if again else [] if point == RUN_OVER else [say(ANSWER)]


async def die_at(app: AppProcess, engine: ScriptedEngine, point: str, sql, **body: Any) -> str:
    hold = Hold()
    engine.queue = first_life(point, hold)
    lock, sight = LOCKS.get(point, (None, None))
    if point == RUN_OVER:  # the claim needs the table that its end shall not have
        engine.queue[1].insert(0, hold)
    elif lock:
        sql.execute(f"BEGIN; LOCK TABLE {lock} MODE")
    job = await submit(app, QUESTION, **body)
    if point == RUN_OVER:
        await asyncio.wait_for(hold.reached.wait(), 10)
        sql.execute(f"BEGIN; LOCK TABLE {lock} MODE")
        hold.release.set()
    elif not lock:
        await asyncio.wait_for(hold.reached.wait(), 10)
    if sight:
        async with asyncio.timeout(10):
            while sql.execute(sight).fetchone() != (True,):
                await asyncio.sleep(0.02)
    if lock:
        await asyncio.sleep(0.5)
    await app.kill()
    hold.release.set()
    if lock:
        sql.execute("ROLLBACK")
    return job


def assert_whole(job: dict[str, Any], sql, engine: ScriptedEngine) -> None:
    assert job["status"] == "done", job
    assert job["result"]["content"] == ANSWER
    assert job["attempt"] == 2
    last = engine.requests[-1]["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "tool"]
    assert last[0]["content"] == QUESTION
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
    assert sql.execute("SELECT count(*), max(status) FROM app.runs").fetchone() == (1, "done")


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_job_goes_on_and_its_side_effect_is_there_once(
    app: AppProcess, engine: ScriptedEngine, sql, receiver: Receiver, point: str
) -> None:
    async with receiver.serving():
        job = await die_at(app, engine, point, sql, webhook_url=receiver.url)
        engine.queue = second_life(point)
        await app.start()
        assert_whole(await until(app, job), sql, engine)
        await arrived(sql)
    assert [body["type"] for body in receiver.bodies()] == ["job.done"]


async def test_a_queued_job_is_there_after_sigkill(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    hold = Hold()
    engine.queue = [[hold], [hold]]
    jobs = [await submit(app, f"{n}.") for n in range(4)]
    await app.kill()
    hold.release.set()
    engine.queue = []
    await app.start()
    assert [(await until(app, job))["status"] for job in jobs] == ["done"] * 4
    assert sql.execute("SELECT count(*) FROM app.runs").fetchone() == (4,)


async def test_another_process_takes_a_dead_ones_job_when_its_lease_ran_out(
    app: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine, sql
) -> None:
    job = await die_at(app, engine, IN_ANSWER, sql)
    engine.queue = [say(ANSWER)]
    folder = app.folder / "second"
    folder.mkdir()
    other = AppProcess(folder, configuration)
    (folder / "credentials" / "webhook_secret").write_text("hook-secret")
    other.key = app.key
    await other.start()
    assert (await read(other, job))["status"] == "running"
    found = await until(other, job)
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
    assert (found["status"], found["result"]["content"]) == ("done", ANSWER)
    await other.kill()
    await other.client.aclose()


async def test_a_webhook_posted_when_the_process_was_killed_comes_again_under_its_id(
    app: AppProcess, sql, receiver: Receiver
) -> None:
    receiver.hold = Hold()
    async with receiver.serving():
        job = await submit(app, webhook_url=receiver.url)
        await asyncio.wait_for(receiver.hold.reached.wait(), 10)
        await app.kill()
        receiver.hold.release.set()
        receiver.hold = None
        await app.start()
        await arrived(sql)
    assert len(receiver.heard) == 2
    assert len(set(receiver.ids())) == 1
    assert {body["job"]["id"] for body in receiver.bodies()} == {job}


async def test_a_job_that_kills_its_process_every_time_is_given_up(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    hold = Hold()
    engine.default = lambda _body: [hold]
    job = await submit(app)
    for attempt in range(1, 6):
        begun = ("running", attempt)
        async with asyncio.timeout(15):
            while sql.execute("SELECT status, attempt FROM app.jobs").fetchone() != begun:
                # Its pauses would take minutes.
                sql.execute("UPDATE app.jobs SET next_at = now() WHERE status = 'waiting'")
                await asyncio.sleep(0.05)
        await app.kill()
        await app.start()
    hold.release.set()
    found = await until(app, job)
    assert (found["status"], found["error"]["code"]) == ("failed", "gave_up")
    assert "after 5 attempts; the last: the process that ran it died" in found["error"]["message"]


async def test_sigterm_hands_a_running_job_back_at_once_and_it_goes_on_elsewhere(
    app: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine, sql
) -> None:
    hold = Hold()
    engine.queue = [open_ticket(), [chunk({"content": "Repo"}), hold], say(ANSWER)]
    job = await submit(app, QUESTION)
    await asyncio.wait_for(hold.reached.wait(), 10)
    folder = app.folder / "second"
    folder.mkdir()
    other = AppProcess(folder, configuration)
    (folder / "credentials" / "webhook_secret").write_text("hook-secret")
    other.key = app.key
    await other.start()
    began = asyncio.get_running_loop().time()
    assert await app.end() == 0
    found = await until(other, job)
    seconds = asyncio.get_running_loop().time() - began
    print(f"done elsewhere {seconds:.2f} s after SIGTERM")
    assert seconds < 2.5  # the lease is 3 s: it was handed back
    assert_whole(found, sql, engine)
    assert sql.execute("SELECT strikes FROM app.jobs").fetchone() == (0,)
    await other.kill()
    await other.client.aclose()


async def test_lost_words_cost_a_moment_and_no_more(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    deaf = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    assert sql.execute(deaf).rowcount >= 1
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold]]
    job = await submit(app)
    await asyncio.wait_for(hold.reached.wait(), 2)  # found by the clock
    began = asyncio.get_running_loop().time()
    sql.execute("UPDATE app.jobs SET cancel_requested = true")  # and nobody is told
    await engine.idle(seconds=1.5)
    assert (await until(app, job))["status"] == "cancelled"
    assert asyncio.get_running_loop().time() - began < 1.6  # a third of the lease is 1 s


async def test_a_database_that_restarts_costs_a_job_nothing(
    app: AppProcess, engine: ScriptedEngine, postgres: Postgres, database: str
) -> None:
    hold = Hold()
    engine.queue = [open_ticket(), [chunk({"content": "Repo"}), hold, *say("rted.")], say(ANSWER)]
    job = await submit(app, QUESTION)
    await asyncio.wait_for(hold.reached.wait(), 10)
    postgres.stop()
    hold.release.set()
    await asyncio.sleep(1)
    postgres.start()
    found = await until(app, job, seconds=40)
    assert (found["status"], found["result"]["content"]) == ("done", ANSWER)
    with postgres.admin(database) as fresh:
        assert fresh.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
        assert fresh.execute("SELECT strikes FROM app.jobs").fetchone() == (0,)


async def test_the_power_of_the_host_fails_and_the_job_goes_on(
    app: AppProcess, engine: ScriptedEngine, postgres: Postgres, database: str
) -> None:
    hold = Hold()
    engine.queue = [open_ticket(), [chunk({"content": "Repo"}), hold]]
    job = await submit(app, QUESTION)
    await asyncio.wait_for(hold.reached.wait(), 10)
    postgres.crash()
    await app.kill()
    hold.release.set()
    engine.queue = [say(ANSWER)]
    postgres.start()
    await app.start()
    found = await until(app, job)
    assert (found["status"], found["result"]["content"]) == ("done", ANSWER)
    with postgres.admin(database) as fresh:
        assert fresh.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
