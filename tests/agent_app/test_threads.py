import asyncio
import uuid

import pytest
from app_process import AppProcess
from scripted_engine import Hold, ScriptedEngine, call_tool, chunk, say


async def get(app: AppProcess, path: str, status: int = 200):
    response = await app.client.get(path, headers=app.headers())
    assert response.status_code == status, response.text
    return response.json()


async def test_threads_are_listed_newest_first_under_their_first_message(app: AppProcess) -> None:
    long = "words " * 40
    first = await app.chat("The first\n thread")
    await app.chat("goes on", thread_id=first.thread_id)
    second = await app.chat(long)
    found = (await get(app, "/threads"))["threads"]
    assert [thread["id"] for thread in found] == [second.thread_id, first.thread_id]
    assert found[1]["title"] == "The first thread"
    assert found[0]["title"].endswith("words…")
    assert len(found[0]["title"]) <= 81
    assert found[1]["tokens"] == 30
    assert {thread["status"] for thread in found} == {"done"}


async def test_pages_follow_each_other_without_gap_or_overlap(app: AppProcess) -> None:
    begun = [(await app.chat(f"Thread {n}")).thread_id for n in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        page = await get(app, f"/threads?limit=2{f'&cursor={cursor}' if cursor else ''}")
        seen += [thread["id"] for thread in page["threads"]]
        cursor = page["next_cursor"]
    assert seen == begun[::-1]


@pytest.mark.parametrize("cursor", ["x", "!!!!", "Zm9v", "MjAyNi0wMS0wMV94", "%00", "ÄÖ"])
async def test_a_cursor_that_is_not_ours_is_refused(app: AppProcess, cursor: str) -> None:
    body = await get(app, f"/threads?cursor={cursor}", 400)
    assert body["error"]["code"] == "invalid_request"


async def test_a_thread_is_read_as_it_was_shown(app: AppProcess, engine: ScriptedEngine) -> None:
    engine.queue = [call_tool("engine proxy port"), call_tool("x", name="none"), say("It is 8000.")]
    heard = await app.chat("Which port?")
    thread = await get(app, f"/threads/{heard.thread_id}")
    user, search, wrong, answer = thread["messages"]
    assert (user["role"], user["content"]) == ("user", "Which port?")
    assert search["tools"][0]["name"] == "search_knowledge"
    assert search["tools"][0]["ok"]
    assert search["tools"][0]["result"] == heard.of("tool")[1]["result"]
    assert not wrong["tools"][0]["ok"]
    assert (answer["role"], answer["content"]) == ("assistant", "It is 8000.")
    assert answer["id"] == heard.of("done")[0]["message_id"]


async def test_a_message_that_has_no_checkpoint_yet_is_shown(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[hold, *say("late")]]
    thread = str(uuid.uuid4())
    async with app.streaming({"message": "Wait.", "thread_id": thread}):
        await hold.reached.wait()
        found = await get(app, f"/threads/{thread}")
        assert found["status"] == "running"
        assert [message["content"] for message in found["messages"]] == ["Wait."]
        hold.release.set()


async def test_deleting_a_thread_leaves_nothing_of_it(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [call_tool("slots"), say("Two.")]
    kept = await app.chat("Slots?")
    engine.queue = [call_tool("slots"), say("Two.")]
    gone = await app.chat("Slots?")
    path = f"/threads/{gone.thread_id}"
    response = await app.client.delete(path, headers=app.headers())
    assert response.json() == {"id": gone.thread_id, "deleted": True}
    await get(app, path, 404)
    assert (await app.client.delete(path, headers=app.headers())).status_code == 404
    for table in (
        *("app.runs", "app.tool_effects", "checkpoints.checkpoints"),
        *("checkpoints.checkpoint_blobs", "checkpoints.checkpoint_writes"),
    ):
        threads = sql.execute(f"SELECT DISTINCT thread_id::text FROM {table}").fetchall()
        assert threads in ([(kept.thread_id,)], []), table
    assert sql.execute("SELECT id::text FROM app.threads").fetchall() == [(kept.thread_id,)]


async def test_a_thread_at_work_is_not_deleted(app: AppProcess, engine: ScriptedEngine) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold, *say("b")]]
    async with app.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
        response = await app.client.delete(f"/threads/{heard.thread_id}", headers=app.headers())
        assert response.status_code == 409
        assert response.json()["error"]["code"] == "thread_busy"
        assert response.headers["retry-after"]
        hold.release.set()
        assert [name async for name in events][-1] == "done"


async def test_another_keys_thread_does_not_exist(app: AppProcess) -> None:
    mine = (await app.chat("Mine.")).thread_id
    app.key = app.run("keys", "create", "--name", "other")
    assert (await get(app, "/threads"))["threads"] == []
    for method, path in (
        ("GET", f"/threads/{mine}"),
        ("DELETE", f"/threads/{mine}"),
        ("POST", f"/threads/{mine}/stop"),
    ):
        response = await app.client.request(method, path, headers=app.headers())
        assert response.status_code == 404, f"{method} {path}"
    assert (await app.client.get("/threads")).status_code == 401


async def test_stop_ends_the_run_and_the_engines_work_and_it_can_go_on(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "part"}), hold], say("whole")]
    async with app.streaming({"message": "Go."}) as (heard, events):
        await anext(events)
        path = f"/threads/{heard.thread_id}/stop"
        response = await app.client.post(path, headers=app.headers())
        assert response.json() == {"stopping": True}
        assert [name async for name in events][-1] == "error"
        error = heard.of("error")[0]
        assert (error["code"], error["retryable"]) == ("stopped", False)
    await engine.idle(2)
    assert (await get(app, f"/threads/{heard.thread_id}"))["status"] == "interrupted"
    assert (await app.client.post(path, headers=app.headers())).json() == {"stopping": False}
    again = await app.chat(thread_id=heard.thread_id, resume=True)
    assert again.text() == "whole"


async def test_stop_reaches_a_run_in_another_process(
    app: AppProcess, engine: ScriptedEngine, configuration, tmp_path
) -> None:
    (tmp_path / "other").mkdir()
    other = AppProcess(tmp_path / "other", configuration)
    other.key = app.key
    await other.start()
    try:
        hold = Hold()
        engine.queue = [[chunk({"content": "part"}), hold]]
        async with other.streaming({"message": "Go."}) as (heard, events):
            await anext(events)
            path = f"/threads/{heard.thread_id}/stop"
            response = await app.client.post(path, headers=app.headers())
            assert response.json() == {"stopping": True}
            async with asyncio.timeout(8):  # a third of the lease, 15 s
                assert [name async for name in events][-1] == "error"
            assert heard.of("error")[0]["code"] == "stopped"
        await engine.idle(2)
    finally:
        await other.client.aclose()
        await other.kill()


async def test_a_deletion_that_waited_for_a_new_run_does_not_cut_it(app: AppProcess, sql) -> None:
    thread = (await app.chat("One.")).thread_id
    with sql.transaction():  # what a claim in another process does, not yet committed
        sql.execute("SELECT FROM app.threads WHERE id = %s FOR UPDATE", (thread,))
        deleting = asyncio.create_task(
            app.client.delete(f"/threads/{thread}", headers=app.headers())
        )
        async with asyncio.timeout(5):
            while not sql.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            ).fetchone():
                await asyncio.sleep(0.02)
        sql.execute(
            "INSERT INTO app.runs"
            " (id, thread_id, correlation_id, model, message, status, owner, lease_until)"
            " VALUES (gen_random_uuid(), %s, 'x', 'demo', 'Two.', 'running', 'other',"
            " now() + interval '15 s')",
            (thread,),
        )
    assert (await deleting).status_code == 409
    assert len((await get(app, f"/threads/{thread}"))["messages"]) == 3
