"""Erasure reaches every store, gives a receipt, and is finished however often it is killed."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from app_process import AppProcess
from data_servers import PASSWORD, Postgres, RedisServer
from scripted_engine import USAGE, Hold, ScriptedEngine, chunk, say

from agent_app.state.reach import HANDLED_APART, SCHEMAS, Reach

CANARY = "kanarienvogel-7f3a"


@pytest.fixture
async def desk(configuration: dict[str, Any], prepared: AppProcess) -> AppProcess:
    """The app with tickets."""
    configuration["tools"] = {"tickets": {}}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    prepared.config.write_text(app.config.read_text())
    prepared.port, prepared.url, prepared.client = app.port, app.url, app.client
    prepared.metrics_port = app.metrics_port
    await prepared.start()
    return prepared


def ticket(title: str) -> list[Any]:
    function = {"name": "create_ticket", "arguments": json.dumps({"title": title, "body": title})}
    delta = {"tool_calls": [{"index": 0, "id": "call_0", "function": function}]}
    return [chunk(delta), chunk(reason="tool_calls"), USAGE]


def connect(server: RedisServer, database: int) -> "redis.Redis":
    return redis.Redis(port=server.port, db=database, password=PASSWORD)


async def plant(app: AppProcess, engine: ScriptedEngine, server: RedisServer, sql) -> str:
    """Leave the canary of a new key in every store; return the key's id."""
    made = json.loads(
        app.run("keys", "create", "--name", f"{CANARY}-key", "--limit", "tokens_per_minute=90000",
                "--json")
    )  # fmt: skip
    app.key, key = made["key"], made["id"]
    engine.queue = [ticket(f"{CANARY} ticket"), say(f"{CANARY} answer")]
    heard = await app.chat(f"{CANARY} question")
    # A second thread whose turn was cut off, so that checkpoints and writes are pending.
    hold = Hold()
    engine.queue = [[chunk({"content": CANARY}), hold]]
    async with app.streaming({"message": f"{CANARY} cut"}) as (_, events):
        await anext(events)
        await asyncio.sleep(0.2)
    hold.release.set()
    headers = {**app.headers(), "X-Feature": CANARY}
    engine.queue = [ticket(f"{CANARY} stateless ticket"), say(CANARY)]
    body = {"messages": [{"role": "user", "content": CANARY}]}
    await app.client.post("/v1/chat/completions", json=body, headers=headers)
    for database in (0, 1):
        connect(server, database).set(f"cache:{key}:answer", CANARY)
    connect(server, 1).set(f"stream:{UUID(heard.thread_id).hex}", CANARY)
    # As part `jobs` and any other may leave it.
    sql.execute(
        "CREATE TABLE app.some_jobs (id bigint PRIMARY KEY, text text,"
        " key_id uuid REFERENCES app.api_keys (id));"
        "CREATE TABLE app.some_job_events (job bigint REFERENCES app.some_jobs (id), data bytea);"
        "GRANT ALL ON app.some_jobs, app.some_job_events TO agent_app"
    )
    sql.execute("INSERT INTO app.some_jobs VALUES (1, %s, %s)", (CANARY, key))
    sql.execute("INSERT INTO app.some_job_events VALUES (1, %s)", (CANARY.encode(),))
    sql.execute(
        "INSERT INTO app.audit_outbox (kind, key_id, thread_id, details) VALUES"
        " ('test.entry', %s, %s, %s)",
        (key, heard.thread_id, json.dumps({"canary": CANARY})),
    )
    return str(key)


def finds(sql, server: RedisServer, needle: str) -> list[str]:
    """Return where a text is, in any column of any table or in Redis."""
    found = []
    columns = sql.execute(
        "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()
    assert len(columns) > 100
    for schema, table, column, kind in columns:
        text = f'"{column}"::text'
        if kind == "bytea":
            text = f"encode(\"{column}\", 'escape')"
        query = f'SELECT count(*) FROM "{schema}"."{table}" WHERE position(%s IN {text}) > 0'
        if sql.execute(query, (needle,)).fetchone()[0]:
            found.append(f"{schema}.{table}.{column}")
    for database in (0, 1):
        client = connect(server, database)
        for name in client.scan_iter():
            dumped = client.dump(name) or b""
            if needle.encode() in name + dumped:
                found.append(f"redis {database} {name!r}")
    return found


async def test_a_canary_planted_everywhere_is_found_nowhere_after(
    desk: AppProcess, engine: ScriptedEngine, sql, redis_server: RedisServer, tmp_path: Path
) -> None:
    connect(redis_server, 0).flushall()
    key = await plant(desk, engine, redis_server, sql)
    before = finds(sql, redis_server, CANARY)
    for place in ("app.api_keys.name", "app.runs.message", "app.tickets.title",
                  "app.tool_effects.arguments", "checkpoints.checkpoint_blobs.blob",
                  "app.usage.feature", "app.some_jobs.text",
                  "app.some_job_events.data"):  # fmt: skip
        assert place in before, before
    assert len([place for place in before if place.startswith("redis")]) == 3
    dry = json.loads(desk.run("erase", "--key", key, "--dry-run", "--json"))
    assert dry["found"]["app.threads"] == 2
    assert finds(sql, redis_server, CANARY)

    receipt = json.loads(desk.run("erase", "--key", f"{CANARY}-key", "--yes", "--json"))
    await asyncio.sleep(1)
    assert finds(sql, redis_server, CANARY) == []
    assert CANARY not in desk.log()
    assert CANARY not in json.dumps(receipt)
    assert receipt["erased"]["app.threads"] == 2
    assert receipt["erased"]["app.tickets"] == 2
    assert receipt["erased"]["app.some_job_events"] == 1
    assert receipt["erased"]["app.audit_keys"] == 3
    assert receipt["erased"]["redis_cache"] == 1
    assert receipt["erased"]["redis_state"] >= 2
    assert receipt["kept"] == {"app.usage as sums": 2}
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    assert "nothing is left" in desk.run("erase", "verify", str(tmp_path / "receipt.json"))
    # The chain holds, and what it says of the key can be opened by nobody.
    assert "entries hold" in desk.run("audit", "verify")
    lines = [json.loads(line) for line in desk.run("audit", "export").splitlines()[:-1]]
    of_key = [line for line in lines if line["key_id"] == key]
    assert len(of_key) >= 5
    assert all(line["opened"] is None for line in of_key)
    assert len(desk.run("audit", "export", "--key", key).splitlines()) == len(of_key) + 1
    done = next(line for line in lines if line["kind"] == "erase.done")
    assert done["opened"]["details"]["receipt_hash"] == receipt["hash"]
    # Sums stay, of nobody.
    usage = json.loads(desk.run("usage", "--json"))
    assert {row["key"] for row in usage} == {"(erased)"}
    assert "(erased)" not in desk.run("keys", "list")
    # Again, by its id: the same receipt.
    assert json.loads(desk.run("erase", "--key", key, "--yes", "--json")) == receipt
    refused = await desk.client.get("/threads", headers=desk.headers())
    assert refused.status_code == 401


async def test_a_thread_alone_is_erased_and_others_stay(
    desk: AppProcess, engine: ScriptedEngine, sql, redis_server: RedisServer
) -> None:
    kept = await desk.chat("Keep this.")
    engine.queue = [ticket(f"{CANARY} ticket"), say(CANARY)]
    gone = await desk.chat(f"{CANARY} question")
    receipt = json.loads(
        desk.run("erase", "--thread", gone.thread_id, "--yes", "--keep-tickets", "--json")
    )
    assert receipt["kept"] == {"app.tickets": 1}
    assert finds(sql, redis_server, CANARY) == ["app.tickets.title", "app.tickets.body"]
    assert sql.execute("SELECT thread_id, key_id FROM app.tickets").fetchall() == [(None, None)]
    answer = await desk.client.get(f"/threads/{kept.thread_id}", headers=desk.headers())
    assert [m["content"] for m in answer.json()["messages"]] == ["Keep this.", "ok"]
    assert (await desk.chat("Go on.", thread_id=kept.thread_id)).text() == "ok"


@pytest.mark.parametrize("change", ["erased", "by", "signature", "nothing erased"])
async def test_a_forged_receipt_or_a_leftover_is_found(
    desk: AppProcess, sql, tmp_path: Path, change: str
) -> None:
    heard = await desk.chat("Hello.")
    receipt = json.loads(desk.run("erase", "--thread", heard.thread_id, "--yes", "--json"))
    if change == "erased":
        receipt["erased"]["app.runs"] = 99
    elif change == "by":
        receipt["by"] = "someone else"
    elif change == "signature":
        receipt["signature"] = "00" * 64
    else:
        await desk.chat("Hello again.", thread_id=heard.thread_id)
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt))
    done = desk.complete("erase", "verify", str(file), "--json")
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout)
    assert bool(verdict["left"]) == (change == "nothing erased")
    assert bool(verdict["problems"]) == (change != "nothing erased")


async def test_an_erasure_killed_at_any_instant_is_finished_with_one_receipt(
    desk: AppProcess, engine: ScriptedEngine, sql, redis_server: RedisServer, tmp_path: Path
) -> None:
    key = await plant(desk, engine, redis_server, sql)
    # Many threads, so that there are many steps to be killed in.
    thread = "SELECT gen_random_uuid(), %s FROM generate_series(1, 2000)"
    sql.execute(f"INSERT INTO app.threads (id, key_id) {thread}", (key,))
    sql.execute(
        "INSERT INTO app.runs (id, thread_id, correlation_id, model, message, status, owner,"
        " lease_until) SELECT gen_random_uuid(), id, '', 'demo', %s, 'done', 'x', now()"
        " FROM app.threads WHERE key_id = %s AND id NOT IN (SELECT thread_id FROM app.runs)",
        (CANARY, key),
    )
    sql.execute("UPDATE app.api_keys SET revoked_at = now() - interval '1 h' WHERE id = %s", (key,))
    kills = 0
    for pause in (0.0, 0.1, 0.15, 0.2, 0.3, 0.4):
        process = desk.command("erase", "--key", key, "--yes", "--json")
        started = "SELECT count(*) FROM app.erasures WHERE erased <> '{}'"
        while process.poll() is None and not sql.execute(started).fetchone()[0]:
            time.sleep(0.002)
        if kills:  # it has begun before: wait until this one is at work
            counted = sql.execute("SELECT erased FROM app.erasures").fetchone()
            while process.poll() is None and (
                sql.execute("SELECT erased FROM app.erasures").fetchone() == counted
            ):
                time.sleep(0.002)
        time.sleep(pause)
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills >= 3
    receipt = json.loads(desk.run("erase", "--key", key, "--yes", "--json"))
    assert receipt["erased"]["app.threads"] == 2_002  # each counted once
    assert receipt["erased"]["app.runs"] == 2_002
    assert sql.execute("SELECT count(*) FROM app.erasures").fetchone() == (1,)
    assert finds(sql, redis_server, CANARY) == []
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    assert "nothing is left" in desk.run("erase", "verify", str(tmp_path / "receipt.json"))
    kinds = [json.loads(line).get("kind") for line in desk.run("audit", "export").splitlines()]
    assert kinds.count("erase.done") == 1


async def test_a_run_under_way_is_stopped_first(
    desk: AppProcess, engine: ScriptedEngine, sql
) -> None:
    hold = Hold()
    engine.queue = [[chunk({"content": "a"}), hold, *say("b")]]
    async with desk.streaming({"message": "Hi."}) as (heard, events):
        await anext(events)
        process = desk.command("erase", "--thread", heard.thread_id, "--yes", "--json")
        async for _ in events:
            pass
        out, err = await asyncio.to_thread(process.communicate, None, 60)
    hold.release.set()
    assert process.returncode == 0, err
    assert heard.of("error")[0]["code"] == "stopped"
    assert json.loads(out)["erased"]["app.runs"] == 1
    assert sql.execute("SELECT count(*) FROM checkpoints.checkpoints").fetchone() == (0,)


async def test_without_redis_the_erasure_waits_to_be_given_again(
    desk: AppProcess, redis_server: RedisServer, sql
) -> None:
    heard = await desk.chat("Hello.")
    redis_server.stop()
    try:
        done = desk.complete("erase", "--thread", heard.thread_id, "--yes")
        assert done.returncode == 1
        assert "Redis does not answer" in done.stderr
        assert "give the command again" in done.stderr
    finally:
        redis_server.start()
    assert json.loads(desk.run("erase", "--thread", heard.thread_id, "--yes", "--json"))["erased"]


async def test_a_late_entry_of_an_erased_subject_opens_for_nobody(desk: AppProcess, sql) -> None:
    heard = await desk.chat("Hello.")
    desk.run("erase", "--thread", heard.thread_id, "--yes")
    sql.execute(
        "INSERT INTO app.audit_outbox (kind, thread_id, details) VALUES ('test.late', %s, '{}')",
        (heard.thread_id,),
    )
    async with asyncio.timeout(10):
        while sql.execute("SELECT count(*) FROM app.audit_outbox").fetchone() != (0,):
            await asyncio.sleep(0.1)
    lines = [json.loads(line) for line in desk.run("audit", "export").splitlines()[:-1]]
    late = next(line for line in lines if line["kind"] == "test.late")
    assert late["sealed"]
    assert late["opened"] is None


def test_erasure_knows_every_table_with_a_key_a_thread_or_a_run(sql) -> None:
    reach = Reach(sql)
    known = set(HANDLED_APART)
    for of_key in (False, True):
        known |= {step.table for step in reach.steps(of_key=of_key)}
    rows = sql.execute(
        "SELECT c.table_schema || '.' || c.table_name FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE c.table_schema = ANY(%s) AND t.table_type = 'BASE TABLE'"
        " AND c.column_name IN ('key_id', 'thread_id', 'run_id')",
        (SCHEMAS,),
    ).fetchall()
    assert {row[0] for row in rows} >= {"app.runs", "checkpoints.checkpoint_blobs", "app.usage"}
    assert {row[0] for row in rows} - known == set()
    assert reach.suspects() == [], (
        "rename these to key_id, thread_id or run_id, or add a foreign key"
    )


def test_a_table_that_hides_its_key_is_suspected(sql) -> None:
    sql.execute("CREATE TABLE app.hidden (owner_key uuid, of_thread text)")
    assert Reach(sql).suspects() == ["app.hidden.of_thread", "app.hidden.owner_key"]


def test_a_subject_that_never_was_is_refused(prepared: AppProcess) -> None:
    for words in (("--thread", str(uuid4())), ("--key", "nobody"), ()):
        done = prepared.complete("erase", *words, "--yes")
        assert done.returncode == 1
        assert "agent-app: " in done.stderr
        assert "Traceback" not in done.stderr


async def test_nothing_goes_before_someone_said_yes(desk: AppProcess, sql) -> None:
    heard = await desk.chat("Hello.")
    for answer in ("n\n", ""):
        process = desk.command("erase", "--thread", heard.thread_id)
        _, err = process.communicate(answer, timeout=60)
        assert process.returncode == 1
        assert "app.threads: 1" in err
    assert sql.execute("SELECT count(*) FROM app.threads").fetchone() == (1,)


async def test_usage_can_be_deleted_too(desk: AppProcess, sql, postgres: Postgres) -> None:
    key = json.loads(desk.run("keys", "create", "--name", "other", "--json"))
    desk.key = key["key"]
    await desk.chat("Hello.")
    receipt = json.loads(
        desk.run("erase", "--key", "other", "--usage", "delete", "--yes", "--json")
    )
    assert receipt["erased"]["app.usage"] == 1
    assert receipt["kept"] == {}
    assert sql.execute("SELECT count(*) FROM app.usage").fetchone() == (0,)
