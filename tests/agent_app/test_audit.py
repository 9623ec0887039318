"""The audit's chain: who writes it, what breaks it, what it survives."""

import asyncio
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest
from app_process import AppProcess
from audited import entries_of, sealed
from data_servers import PASSWORD, Postgres
from scripted_engine import ScriptedEngine, call_tool, say

from agent_app.audit.reading import verify_chain
from agent_app.audit.seal import BATCH, LOCK_KEY, seal_batch
from agent_app.audit.vault import Vault
from agent_app.config import Database
from agent_app.state.audit import Audit, Entry, append_now
from agent_app.state.database import connection_string, make_pool

VAULT = Vault("0123456789abcdef0123456789abcdef")
_PROCESSES = multiprocessing.get_context("spawn")


@pytest.fixture
def conninfo(configuration: dict[str, Any]) -> str:
    """As the app's role comes."""
    return connection_string(
        Database(**configuration["database"]), user="agent_app", password=PASSWORD
    )


def seal_all(sql: "psycopg.Connection[Any]") -> None:
    while seal_batch(sql, VAULT):
        pass


def chain(sql, count: int, key: UUID | None = None) -> None:
    for number in range(count):
        append_now(sql, Entry("test.entry", key, details={"n": number}))
    seal_all(sql)


async def test_runs_tools_refusals_keys_and_deletions_are_chained(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [call_tool("engine proxy port"), say("8000.")]
    heard = await app.chat("Which port?")
    made = json.loads(
        app.run("keys", "create", "--name", "small", "--limit", "requests_per_minute=1", "--json")
    )
    small = {"Authorization": f"Bearer {made['key']}", "X-Request-ID": "audit-test-1"}
    body = {"messages": [{"role": "user", "content": "Hi."}]}
    for _ in range(5):
        await app.client.post("/v1/chat/completions", json=body, headers=small)
    await app.client.delete(f"/threads/{heard.thread_id}", headers=app.headers())
    app.run("keys", "limit", "small", "requests_per_minute=2")
    app.run("keys", "rotate", "small")
    app.run("keys", "revoke", "small")
    await sealed(app, "key.revoke")
    await sealed(app, "audit.export")  # of the waiting itself
    found = {entry["kind"]: entry for entry in entries_of(app)}
    assert set(found) >= {
        "database.migrate", "key.create", "tool.call", "run.end", "run.refuse", "thread.delete",
        "key.limit", "key.rotate", "key.revoke", "audit.export",
    }  # fmt: skip
    assert found["tool.call"]["opened"]["details"]["tool"] == "search_knowledge"
    assert found["tool.call"]["thread_id"] == heard.thread_id
    stateless = found["run.end"]
    assert stateless["key_id"] == made["id"]
    assert stateless["opened"] == {
        "correlation": "audit-test-1",
        "details": {"status": "done", "attempt": 1, "model": "demo", "feature": "",
                    "prompt_tokens": 10, "completion_tokens": 5},
    }  # fmt: skip
    assert found["key.revoke"]["opened"]["details"] == {"name": "small"}
    assert found["key.revoke"]["actor"].startswith("operator ")
    refusals = [e for e in entries_of(app) if e["kind"] == "run.refuse"]
    assert len(refusals) == 1  # of four: a flood cannot fill the disk
    assert "small" not in json.dumps([{**e, "opened": None} for e in entries_of(app)])
    assert "small" not in app.log()


async def test_a_clients_flood_of_refusals_is_two_entries(
    conninfo: str, sql, configuration
) -> None:
    pool = make_pool(Database(**configuration["database"]), PASSWORD)
    await pool.open()
    audit, key = Audit(pool), uuid4()
    for _ in range(5_000):
        await audit.record_bounded("run.refuse", key_id=key, why="rate_limit_exceeded")
    await audit.close()
    await pool.close()
    found = sql.execute("SELECT details FROM app.audit_outbox ORDER BY id").fetchall()
    assert [json.loads(row[0]).get("more") for row in found][-2:] == [None, 4_999]


async def test_the_entries_of_a_run_are_written_in_the_statements_that_make_them_true(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    with sql.transaction():  # no sealer can work while we hold its lock
        sql.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        engine.queue = [call_tool("engine proxy port"), say("8000.")]
        await app.chat("Which port?")
        together = (
            "SELECT count(*) FROM app.audit_outbox AS o JOIN {} AS t ON t.xmin::text = o.xmin::text"
            " WHERE o.kind = %s"
        )
        for table, kind in (("app.runs", "run.end"), ("app.tool_effects", "tool.call")):
            assert sql.execute(together.format(table), (kind,)).fetchone() == (1,)


def test_the_apps_role_can_neither_change_nor_remove_nor_disable(conninfo: str, sql) -> None:
    chain(sql, 3)
    for statement in (
        "UPDATE audit.entries SET kind = 'x'",
        "DELETE FROM audit.entries",
        "TRUNCATE audit.entries",
        "ALTER TABLE audit.entries DISABLE TRIGGER ALL",
        "DROP TRIGGER entries_stay ON audit.entries",
        "INSERT INTO audit.anchors VALUES (9, 'x', 9, now())",
        "SET session_replication_role = replica",
        "SELECT audit.drop_old(now(), 1000)",
        "INSERT INTO audit.entries (number, at, kind, actor, body, previous, hash)"
        " VALUES (9, now(), 'forged', '', '{}', 'x', 'y')",
    ):
        with (
            psycopg.connect(conninfo, autocommit=True) as connection,
            pytest.raises(
                (psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityConstraintViolation)
            ),
        ):
            connection.execute(statement)
    assert verify_chain(sql).entries >= 3


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit.entries SET kind = 'x'", "DELETE FROM audit.entries", "TRUNCATE audit.entries"],
)
def test_even_the_superuser_is_refused_until_the_trigger_is_off(sql, statement: str) -> None:
    chain(sql, 3)
    sql.execute("SET session_replication_role = replica")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        sql.execute(statement)


def tamper(sql, *statements: str) -> None:
    sql.execute("ALTER TABLE audit.entries DISABLE TRIGGER ALL")
    for statement in statements:
        sql.execute(statement)
    sql.execute("ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER entries_stay")
    sql.execute("ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER entries_follow")


@pytest.mark.parametrize(
    ("statements", "number", "why"),
    [
        (["UPDATE audit.entries SET kind = 'nothing.happened' WHERE number = 7"], 7, "altered"),
        (["UPDATE audit.entries SET sealed = sealed || 'x' WHERE number = 7"], 7, "altered"),
        (["UPDATE audit.entries SET at = at - interval '1 us' WHERE number = 7"], 7, "altered"),
        (["DELETE FROM audit.entries WHERE number = 7"], 8, "7 is missing"),
        (["UPDATE audit.entries SET number = -7 WHERE number = 7",
          "UPDATE audit.entries SET number = 7 WHERE number = 8",
          "UPDATE audit.entries SET number = 8 WHERE number = -7"], 7, "does not follow"),
        (["DELETE FROM audit.entries WHERE number < 4"], 4, "1 is missing"),
    ],
)  # fmt: skip
def test_what_was_altered_removed_or_reordered_is_found(
    prepared: AppProcess, sql, statements: list[str], number: int, why: str
) -> None:
    chain(sql, 12, uuid4())
    tamper(sql, *statements)
    done = prepared.complete("audit", "verify", "--json")
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["broken"]["number"] == number
    assert why in verdict["broken"]["why"]


def test_a_cut_tail_is_found_by_the_pinned_head(prepared: AppProcess, sql) -> None:
    chain(sql, 12)
    head = prepared.run("audit", "head")
    assert prepared.run("audit", "verify", "--head", head)
    chain(sql, 3)
    assert prepared.run("audit", "verify", "--head", head)
    tamper(sql, f"DELETE FROM audit.entries WHERE number >= {head.split(':')[0]}")
    assert prepared.run("audit", "verify")  # alone it looks whole: hence the pin
    done = prepared.complete("audit", "verify", "--head", head)
    assert done.returncode == 1
    assert "its tail was cut" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"kind":"test.entry"', '"kind":"test.other"', "altered"),
        ('"n":3', '"n":4', "not those that were exported"),
        ('"entries":', '"entries":9', "signature"),
    ],
)
def test_an_export_is_verified_without_the_database(
    prepared: AppProcess, sql, tmp_path: Path, old: str, new: str, why: str
) -> None:
    chain(sql, 8, uuid4())
    prepared.run("keys", "create", "--name", "someone")
    seal_all(sql)
    text = prepared.run("audit", "export") + "\n"
    assert text == prepared.run("audit", "export") + "\n" or "exported_at" in text
    file = tmp_path / "export.jsonl"
    file.write_text(text)
    public = json.loads(prepared.run("audit", "head", "--json"))["public_key"]
    (prepared.folder / "credentials" / "database_password").unlink()
    (prepared.folder / "credentials" / "audit_secret").unlink()
    assert "entries hold" in prepared.run("audit", "verify", str(file), "--public-key", public)
    file.write_text(text.replace(old, new, 1))
    done = prepared.complete("audit", "verify", str(file), "--public-key", public)
    assert done.returncode == 1, done.stderr
    assert why in done.stdout
    file.write_text("".join(line + "\n" for line in text.splitlines()[:-1]))
    assert "the file was cut" in prepared.complete("audit", "verify", str(file)).stderr


def test_an_export_of_a_key_and_time_holds_only_these_in_the_same_order(
    prepared: AppProcess, sql, tmp_path: Path
) -> None:
    made = json.loads(prepared.run("keys", "create", "--name", "someone", "--json"))
    for _ in range(3):
        chain(sql, 2, UUID(made["id"]))
        chain(sql, 2, uuid4())
    seal_all(sql)
    words = ("audit", "export", "--key", "someone", "--since", "2020-01-01")
    first, again = prepared.run(*words), prepared.run(*words)
    assert first.splitlines()[:-1] == again.splitlines()[:-1]
    found = [json.loads(line) for line in first.splitlines()[:-1]]
    assert {entry["key_id"] for entry in found} == {made["id"]}
    assert len(found) == 7
    (tmp_path / "part.jsonl").write_text(first)
    assert prepared.run("audit", "verify", str(tmp_path / "part.jsonl"))
    assert entries_of(prepared, "--until", "2020-01-01") == []


def test_an_audit_that_another_secret_sealed_says_so(prepared: AppProcess, sql) -> None:
    chain(sql, 1, uuid4())
    (prepared.folder / "credentials" / "audit_secret").write_text(
        "another-secret-of-32-characters!"
    )
    done = prepared.complete("audit", "export")
    assert done.returncode == 2
    assert "another secret wrapped the data keys" in done.stderr


def _append(conninfo: str, configuration: dict[str, Any], count: int, name: str, told: str) -> None:
    """Be a process that records and seals; tell which entries it was promised."""

    async def work() -> None:
        pool = make_pool(Database(**configuration), PASSWORD)
        await pool.open()
        audit = Audit(pool)
        seal = asyncio.create_task(asyncio.to_thread(_seal_for_ever, conninfo))
        with Path(told).open("a", encoding="utf-8") as out:
            for start in range(0, count, 50):
                for number in range(start, start + 50):
                    details = {"from": name, "n": number}
                    await audit.record("test.load", key_id=UUID(int=number % 7), details=details)
                await audit.flush()
                out.write(f"{name} {start + 50}\n")
                out.flush()
        await asyncio.to_thread(_stop.set)
        await seal

    asyncio.run(work())


class _Stop:
    def __init__(self) -> None:
        self.done = False

    def set(self) -> None:
        self.done = True


_stop = _Stop()


def _seal_for_ever(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while True:
            moved = seal_batch(connection, VAULT, most=BATCH)
            if moved == 0 and _stop.done:
                return
            if moved <= 0:
                time.sleep(0.005)


def spawn(conninfo: str, configuration: dict[str, Any], count: int, name: str, told: Path) -> Any:
    process = _PROCESSES.Process(
        target=_append, args=(conninfo, configuration["database"], count, name, str(told))
    )
    process.start()
    return process


def chained_load(sql) -> list[tuple[str, int]]:
    """Return the load entries of the chain, opened."""
    from agent_app.audit.reading import Chosen, Opener, read_entries

    opener, found = Opener(VAULT), []
    with sql.transaction():
        for entry, wrapped in read_entries(sql, Chosen()):
            if entry.kind == "test.load":
                details = json.loads(opener.open(entry, wrapped) or "{}")["details"]
                found.append((details["from"], details["n"]))
    return found


def test_two_processes_append_5000_entries_while_another_verifies(
    conninfo: str, sql, configuration, tmp_path: Path
) -> None:
    writers = [spawn(conninfo, configuration, 2_500, n, tmp_path / n) for n in ("a", "b")]
    checks = 0
    with psycopg.connect(conninfo, autocommit=True) as reader:
        while any(writer.is_alive() for writer in writers):
            assert verify_chain(reader).broken is None
            checks += 1
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    seal_all(sql)
    assert checks > 3
    assert verify_chain(sql).broken is None
    assert sorted(chained_load(sql)) == sorted((w, n) for w in "ab" for n in range(2_500))


def test_a_process_killed_at_any_instant_breaks_no_chain_and_loses_no_promise(
    conninfo: str, sql, configuration, tmp_path: Path
) -> None:
    promised: dict[str, int] = {}
    for life in range(6):
        told = tmp_path / f"life{life}"
        writer = spawn(conninfo, configuration, 100_000, f"life{life}", told)
        while not told.exists() or not told.read_text():
            time.sleep(0.01)
        time.sleep(0.05 + 0.11 * life)
        writer.kill()
        writer.join(10)
        lines = told.read_text().splitlines()
        promised[f"life{life}"] = int(lines[-1].split()[1])
        assert verify_chain(sql).broken is None
    seal_all(sql)
    assert verify_chain(sql).broken is None
    found = chained_load(sql)
    assert len(found) == len(set(found))
    for life, count in promised.items():
        assert {(life, n) for n in range(count)} <= set(found)


async def test_recording_costs_a_run_nothing_to_wait_for(configuration, sql) -> None:
    pool = make_pool(Database(**configuration["database"]), PASSWORD)
    await pool.open()
    audit = Audit(pool)
    work = asyncio.create_task(audit.work())
    key, longest = uuid4(), 0.0
    began = time.perf_counter()
    for number in range(2_000):
        before = time.perf_counter()
        await audit.record("route.choose", key_id=key, details={"engine": "demo", "n": number})
        longest = max(longest, time.perf_counter() - before)
        await asyncio.sleep(0)
    mean = (time.perf_counter() - began) / 2_000
    work.cancel()
    await audit.close()
    await pool.close()
    assert mean < 0.001, f"{mean * 1e6:.0f} µs"
    print(f"record: mean {mean * 1e6:.1f} µs, longest {longest * 1e6:.0f} µs")


async def test_the_head_is_a_metric(app: AppProcess, sql) -> None:
    await app.chat("Hello.")
    await sealed(app, "run.end")
    await asyncio.sleep(0.7)
    head = sql.execute(
        "SELECT number, hash FROM audit.entries ORDER BY number DESC LIMIT 1"
    ).fetchone()
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text
    values = dict(
        line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("agent_app_a")
    )
    assert float(values["agent_app_audit_head"]) == head[0]
    assert int(float(values["agent_app_audit_head_fingerprint"])) == int(head[1][:12], 16)


async def test_entries_recorded_while_the_database_is_away_arrive_later(
    app: AppProcess, postgres: Postgres, sql
) -> None:
    await app.chat("Hello.")
    key = app.run("keys", "create", "--name", "small", "--limit", "requests_per_minute=1")
    body = {"messages": [{"role": "user", "content": "Hi."}]}
    headers = {"Authorization": f"Bearer {key}"}
    await app.client.post("/v1/chat/completions", json=body, headers=headers)
    postgres.stop()
    try:
        answer = await app.client.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 429
    finally:
        postgres.start()
    found = await sealed(app, "run.refuse")
    assert found[0]["opened"]["details"]["why"] == "rate_limit_exceeded"
