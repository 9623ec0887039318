"""Jobs over HTTP: submitted, polled, listed, cancelled, bounded."""

import asyncio
import json
import statistics
import time
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from app_process import AppProcess
from audited import entries_of, sealed
from job_client import post, read, submit, until
from scripted_engine import Hold, ScriptedEngine, Status, call_tool, chunk, say


async def metrics(app: AppProcess) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text


async def test_a_job_runs_on_a_thread_of_its_own_and_its_key_finds_the_answer(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [call_tool("slots"), say("Two ", "slots.")]
    answer = await post(app, {"message": "How many slots?"}, **{"X-Feature": "reports"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    job = await until(app, answer.json()["id"])
    assert (job["status"], job["attempt"], job["feature"]) == ("done", 1, "reports")
    assert job["result"]["content"] == "Two slots."
    assert job["usage"] == {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    thread = await app.client.get(f"/threads/{job['thread_id']}", headers=app.headers())
    assert [m["role"] for m in thread.json()["messages"]] == ["user", "assistant", "assistant"]
    usage = (await app.client.get("/usage", headers=app.headers())).json()
    assert [(row["feature"], row["requests"]) for row in usage["usage"]] == [("reports", 1)]


async def test_a_job_begins_within_half_a_second(app: AppProcess, engine: ScriptedEngine) -> None:
    asked: list[float] = []

    def answer(_body: dict[str, Any]) -> list[Any]:
        asked.append(time.monotonic())
        return say("ok")

    engine.default = answer
    delays = []
    for n in range(12):
        began = time.monotonic()
        await until(app, await submit(app, f"Work {n}."))
        delays.append(asked[-1] - began)
    print(f"start latency: median {statistics.median(delays) * 1000:.0f} ms, most "
          f"{max(delays) * 1000:.0f} ms")  # fmt: skip
    assert statistics.median(delays) < 0.5
    assert "agent_app_job_start_seconds_count 12.0" in await metrics(app)


async def test_a_job_can_begin_with_a_conversation_and_go_on_in_its_thread(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    conversation = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Which port?"},
    ]
    engine.queue = [say("8000."), say("Yes.")]
    answer = await post(app, {"messages": conversation})
    job = await until(app, answer.json()["id"])
    assert engine.requests[0]["messages"] == conversation
    await until(app, await submit(app, "Sure?", thread_id=job["thread_id"]))
    said = [message["content"] for message in engine.requests[1]["messages"]]
    assert said == ["You are brief.", "Hello.", "Hi.", "Which port?", "8000.", "Sure?"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "either message or messages"),
        ({"message": "a", "messages": [{"role": "user", "content": "b"}]}, "either"),
        ({"messages": [{"role": "assistant", "content": "b"}]}, "must be the user's"),
        ({"messages": [{"role": "user", "content": "b"}], "thread_id": str(uuid4())}, "their own"),
        ({"message": "a\0b"}, "NUL"),
        ({"message": "a", "model": "other"}, "unknown model"),
        ({"message": "a", "webhook_url": "https://example.com/"}, "not one that webhooks"),
        ({"message": "a", "surprise": 1}, "surprise"),
    ],
)
async def test_a_job_that_cannot_be_is_refused_with_the_reason(
    app: AppProcess, body: dict[str, Any], words: str
) -> None:
    answer = await post(app, body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_a_text_that_is_no_unicode_is_refused(app: AppProcess) -> None:
    headers = {**app.headers(), "Content-Type": "application/json"}
    answer = await app.client.post("/jobs", content=rb'{"message": "\ud800"}', headers=headers)
    assert answer.status_code == 400


async def test_an_idempotency_key_gives_the_same_job_and_refuses_another_request(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    body, headers = {"message": "Once."}, {"Idempotency-Key": "order-7"}
    answers = await asyncio.gather(*(post(app, body, **headers) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert sorted(map(str, replayed)) == ["None", *["true"] * 5]
    job = await until(app, answers[0].json()["id"])
    late = await post(app, body, **headers)
    assert late.json()["result"] == job["result"]
    assert len(engine.requests) == 1
    other = await post(app, {"message": "Twice."}, **headers)
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    key = app.run("keys", "create", "--name", "other")
    assert (await post(app, body, key, **headers)).json()["id"] != job["id"]


async def test_jobs_of_another_key_do_not_exist(app: AppProcess) -> None:
    job = await submit(app)
    done = await until(app, job)
    key = app.run("keys", "create", "--name", "other")
    headers = {"Authorization": f"Bearer {key}"}
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        answer = await app.client.request(method, f"/jobs/{job}{path}", headers=headers)
        assert answer.status_code == 404, method
    assert (await app.client.get("/jobs", headers=headers)).json()["jobs"] == []
    stolen = await post(app, {"message": "Mine?", "thread_id": done["thread_id"]}, key)
    assert stolen.status_code == 404


async def test_jobs_are_listed_by_page_and_status(app: AppProcess, engine: ScriptedEngine) -> None:
    jobs = [await submit(app, f"Work {n}.") for n in range(5)]
    for job in jobs:
        await until(app, job)
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        query = {"limit": "2", "status": "done", **cursor}
        page = (await app.client.get("/jobs", params=query, headers=app.headers())).json()
        found += [job["id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == jobs[::-1]
    assert "result" not in page["jobs"][0]
    for query in ({"status": "failed"}, {"status": "odd"}, {"cursor": "x"}):
        answer = await app.client.get("/jobs", params=query, headers=app.headers())
        assert answer.json().get("jobs", answer.status_code) in ([], 400)


async def test_a_running_job_is_cancelled_wherever_it_runs_and_the_engine_is_let_go(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    await prepared.start()
    configuration["jobs"] = {"workers": 0}
    folder = prepared.folder / "second"
    folder.mkdir()
    other = AppProcess(folder, configuration)
    other.key = prepared.key
    await other.start()
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold]]
    job = await submit(prepared)
    await asyncio.wait_for(hold.reached.wait(), 5)
    began = time.monotonic()
    answer = await other.client.post(f"/jobs/{job}/cancel", headers=other.headers())
    assert answer.status_code == 200
    assert answer.json()["cancelling"]
    await engine.idle(seconds=5)
    found = await until(other, job)
    print(f"cancelled after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 5  # a third of the lease
    assert (found["status"], found["result"]) == ("cancelled", None)
    again = await other.client.post(f"/jobs/{job}/cancel", headers=other.headers())
    assert again.json()["status"] == "cancelled"
    await other.kill()
    await other.client.aclose()


async def test_a_waiting_job_is_cancelled_at_once_and_stop_on_its_thread_cancels_a_running_one(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    holds = [Hold(), Hold()]
    engine.queue = [[chunk({"content": "a"}), hold] for hold in holds]
    running = [await submit(app, f"Work {n}.") for n in range(2)]
    for hold in holds:
        await asyncio.wait_for(hold.reached.wait(), 5)
    queued = await submit(app, "Later.")
    answer = await app.client.post(f"/jobs/{queued}/cancel", headers=app.headers())
    assert answer.json()["status"] == "cancelled"
    thread = (await read(app, running[0]))["thread_id"]
    await app.client.post(f"/threads/{thread}/stop", headers=app.headers())
    stopped = await until(app, running[0])
    assert (stopped["status"], stopped["error"]["code"]) == ("cancelled", "stopped")
    assert (await read(app, running[1]))["status"] == "running"
    assert len(engine.requests) == 2
    assert json.loads(app.run("jobs", "cancel", running[1], "--json"))["cancel_requested"]
    assert (await until(app, running[1]))["status"] == "cancelled"


async def test_a_job_that_is_over_is_deleted_and_one_that_is_not_stays(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[hold, *say("ok")]]
    job = await submit(app)
    await asyncio.wait_for(hold.reached.wait(), 5)
    thread = (await read(app, job))["thread_id"]
    for path in (f"/jobs/{job}", f"/threads/{thread}"):
        assert (await app.client.delete(path, headers=app.headers())).status_code == 409
    hold.release.set()
    await until(app, job)
    assert (await app.client.delete(f"/jobs/{job}", headers=app.headers())).status_code == 200
    assert (await app.client.get(f"/jobs/{job}", headers=app.headers())).status_code == 404
    second = await submit(app, "More.", thread_id=thread)
    await until(app, second)
    assert (await app.client.delete(f"/threads/{thread}", headers=app.headers())).is_success
    assert (await app.client.get(f"/jobs/{second}", headers=app.headers())).status_code == 404


async def test_a_key_has_so_many_jobs_queued_and_so_many_running(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["limits"]["key_queued_jobs"] = 3
    configuration["jobs"] = {"workers": 4, "per_key": 1}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    hold = Hold()
    engine.queue = [[hold, *say("ok")]]
    first = await submit(app)
    await asyncio.wait_for(hold.reached.wait(), 5)
    answers = await asyncio.gather(*(post(app, {"message": f"{n}"}) for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "3 jobs waiting" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"]
    await asyncio.sleep(1.5)
    assert len(engine.requests) == 1
    other = app.run("keys", "create", "--name", "other")
    await until(app, await submit(app, "Mine.", other), key=other)
    hold.release.set()
    await until(app, first)
    await app.end()
    await app.client.aclose()


async def test_a_rate_limit_makes_a_job_wait_and_a_spent_budget_makes_it_fail(
    app: AppProcess,
) -> None:
    slow = app.run("keys", "create", "--name", "slow", "--limit", "requests_per_minute=6")
    jobs = [await submit(app, f"{n}.", slow) for n in range(7)]
    waiting = await until(app, jobs[-1], "waiting", key=slow)
    assert waiting["error"]["code"] == "rate_limit_exceeded"
    assert waiting["next_at"] is not None
    assert [(await until(app, job, key=slow))["status"] for job in jobs] == ["done"] * 7
    poor = app.run("keys", "create", "--name", "poor", "--limit", "budget_hard=10")
    assert (await until(app, await submit(app, "1.", poor), key=poor))["status"] == "done"
    failed = await until(app, await submit(app, "2.", poor), key=poor)
    assert (failed["status"], failed["attempt"]) == ("failed", 1)
    assert failed["error"]["code"] == "insufficient_quota"


async def test_a_failing_engine_is_given_up_after_so_many_attempts(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["jobs"] = {"attempts": 2}
    configuration["limits"]["engine_wait_seconds"] = 0.2
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    engine.default = lambda _body: [Status(500)]
    job = await until(app, await submit(app))
    assert (job["status"], job["attempt"]) == ("failed", 2)
    assert job["error"]["code"] == "gave_up"
    assert "after 2 attempts; the last: no engine could" in job["error"]["message"]
    engine.default = lambda _body: say("ok")
    page = await metrics(app)
    assert 'agent_app_jobs_ended_total{status="failed"} 1.0' in page
    assert 'agent_app_jobs_put_off_total{reason="engine_unavailable"} 1.0' in page
    await app.end()
    await app.client.aclose()


async def test_a_job_has_wall_clock_of_its_own_and_not_that_of_a_turn(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    configuration["jobs"] = {"seconds": 2}
    configuration["limits"]["turn_seconds"] = 0.5
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    await app.start()
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold, *say("b")], [chunk({"content": "a"}), Hold()]]
    job = await submit(app)
    await asyncio.sleep(1)
    hold.release.set()
    assert (await until(app, job))["status"] == "done"
    job = await until(app, await submit(app))
    assert (job["status"], job["error"]["code"]) == ("failed", "limit_exceeded")
    await engine.idle(seconds=2)
    await app.end()
    await app.client.aclose()


async def test_jobs_of_one_thread_go_one_after_another(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    thread = str(uuid4())
    jobs = [await submit(app, f"{n}.", thread_id=thread) for n in range(4)]
    for job in jobs:
        assert (await until(app, job))["status"] == "done"
    said = [m["content"] for m in engine.requests[-1]["messages"] if m["role"] == "user"]
    assert said == ["0.", "1.", "2.", "3."]


async def test_the_operator_lists_shows_and_the_audit_tells(app: AppProcess) -> None:
    job = await submit(app, "Say it.")
    await until(app, job)
    listed = json.loads(app.run("jobs", "list", "--json"))
    assert [(row["id"], row["status"]) for row in listed] == [(job, "done")]
    assert "message" not in listed[0]
    assert job in app.run("jobs", "list", "--status", "done")
    assert json.loads(app.run("jobs", "show", job, "--json"))["message"] == "Say it."
    await sealed(app, "job.end")
    kinds = [entry["kind"] for entry in entries_of(app) if entry["run_id"] == job]
    assert [kind for kind in kinds if kind.startswith("job.")] == ["job.submit", "job.end"]


async def test_a_revoked_key_ends_what_it_left_queued(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[hold, *say("ok")]]
    key = app.run("keys", "create", "--name", "gone")
    thread = str(uuid4())
    first = await submit(app, "One.", key, thread_id=thread)
    await asyncio.wait_for(hold.reached.wait(), 5)
    second = await submit(app, "Two.", key, thread_id=thread)
    app.run("keys", "revoke", "gone")
    hold.release.set()
    async with asyncio.timeout(10):
        while (shown := json.loads(app.run("jobs", "show", second, "--json")))["error"] is None:
            await asyncio.sleep(0.1)
    assert (shown["status"], shown["error"]["code"]) == ("failed", "invalid_api_key")
    assert json.loads(app.run("jobs", "show", first, "--json"))["status"] == "done"
    assert len(engine.requests) == 1
