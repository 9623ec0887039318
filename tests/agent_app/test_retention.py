"""What is old goes, what is young or in use stays, and a run that is killed is gone on with."""

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from app_process import AppProcess
from scripted_engine import ScriptedEngine, call_tool, say

from agent_app.audit.seal import seal_batch
from agent_app.audit.vault import Vault

VAULT = Vault("0123456789abcdef0123456789abcdef")
AGES = {
    "threads_days": 30, "runs_days": 7, "effects_days": 5, "webhooks_days": 3, "usage_months": 2,
    "audit_days": 40,
}  # fmt: skip


@pytest.fixture
async def desk(
    configuration: dict[str, Any], prepared: AppProcess, monkeypatch: pytest.MonkeyPatch
) -> AppProcess:
    """The app with short ages."""
    configuration["retention"] = AGES
    app = AppProcess(prepared.folder, configuration)
    prepared.port, prepared.client, prepared.metrics_port = app.port, app.client, app.metrics_port
    await prepared.start()
    return prepared


def retain(app: AppProcess, *words: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(app.run("retention", "run", "--json", *words))
    return report


def age(sql, thread: str, days: int) -> None:
    """Make a thread look as if it had been used last so many days ago."""
    sql.execute(
        "UPDATE app.threads SET created_at = now() - make_interval(days => %s) WHERE id = %s",
        (days, thread),
    )
    sql.execute(
        "UPDATE app.runs SET started_at = now() - make_interval(days => %(days)s),"
        " finished_at = now() - make_interval(days => %(days)s),"
        " lease_until = now() - make_interval(days => %(days)s) WHERE thread_id = %(thread)s",
        {"days": days, "thread": thread},
    )


def count(sql, table: str, where: str = "true") -> int:
    return int(sql.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])


async def test_old_threads_go_whole_and_young_ones_stay(
    desk: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [call_tool("engine proxy port"), say("8000.")]
    old = (await desk.chat("Which port?")).thread_id
    young = (await desk.chat("Hello.")).thread_id
    age(sql, old, 31)
    age(sql, young, 29)
    assert retain(desk, "--dry-run")["deleted"]["threads"] == 1
    assert count(sql, "app.threads") == 2
    report = retain(desk)
    assert report["deleted"]["threads"] == 1
    assert report["failed"] == {}
    assert sql.execute("SELECT id::text FROM app.threads").fetchall() == [(young,)]
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        assert count(sql, f"checkpoints.{table}", f"thread_id = '{old}'") == 0
    assert count(sql, "checkpoints.checkpoints", f"thread_id = '{young}'") == 1
    assert count(sql, "app.tool_effects") == 0
    assert (await desk.chat("Go on.", thread_id=young)).text() == "ok"
    kinds = [json.loads(line).get("kind") for line in desk.run("audit", "export").splitlines()]
    assert kinds.count("retention.begin") == 1
    assert kinds.count("retention.end") == 1


async def test_a_thread_in_use_is_never_old(desk: AppProcess, sql) -> None:
    thread = (await desk.chat("Hello.")).thread_id
    age(sql, thread, 90)
    sql.execute("UPDATE app.runs SET status = 'running', lease_until = now() + interval '1 min'")
    assert retain(desk)["deleted"]["threads"] == 0
    sql.execute("UPDATE app.runs SET lease_until = now() - interval '90 d'")
    assert retain(desk)["deleted"]["threads"] == 1


async def test_checkpoints_of_no_thread_and_all_but_the_last_of_others_go(
    desk: AppProcess, engine: ScriptedEngine, sql
) -> None:
    gone = (await desk.chat("Hello.")).thread_id
    engine.queue = [call_tool("engine proxy port"), say("8000.")]
    stay = (await desk.chat("Which port?")).thread_id
    sql.execute("DELETE FROM app.threads WHERE id = %s", (gone,))  # as a run does that lost it
    for n in range(3):  # as runs leave it that ended badly
        sql.execute(
            "INSERT INTO checkpoints.checkpoints (thread_id, checkpoint_id, checkpoint)"
            " SELECT thread_id, '0' || %s, checkpoint FROM checkpoints.checkpoints"
            " WHERE thread_id = %s AND checkpoint_id NOT LIKE '0_' LIMIT 1",
            (str(n), stay),
        )
    sql.execute("UPDATE app.runs SET lease_until = now()")
    report = retain(desk)["deleted"]
    assert report["orphaned_checkpoints"] > 1
    assert report["pruned_threads"] == 1
    assert sql.execute(
        "SELECT thread_id, count(*) FROM checkpoints.checkpoints GROUP BY 1"
    ).fetchall() == [(stay, 1)]
    answer = await desk.client.get(f"/threads/{stay}", headers=desk.headers())
    assert [m["content"] for m in answer.json()["messages"]][-1] == "8000."
    assert retain(desk)["deleted"] == dict.fromkeys(report, 0)


async def test_runs_effects_webhooks_and_usage_go_by_their_ages(
    desk: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [call_tool("engine proxy port"), say("8000.")]
    thread = (await desk.chat("First.")).thread_id
    for message in ("Second.", "Third."):
        await desk.chat(message, thread_id=thread)
    age(sql, thread, 8)
    sql.execute("UPDATE app.tool_effects SET created_at = now() - interval '6 d'")
    sql.execute("INSERT INTO app.tickets (run_id, tool_call_id, title, body, priority)"
                " SELECT gen_random_uuid(), n::text, 't', 'b', 'low'"
                " FROM generate_series(1, 3) AS n")  # fmt: skip
    sql.execute("INSERT INTO app.webhooks (ticket_id, body, delivered_at)"
                " SELECT id, 'b', CASE id WHEN 1 THEN now() - interval '4 d' WHEN 2 THEN now() END"
                " FROM app.tickets")  # fmt: skip
    sql.execute("INSERT INTO app.usage SELECT key_id, day - 100, 'old', feature, requests,"
                " prompt_tokens, completion_tokens, engine_seconds FROM app.usage")  # fmt: skip
    report = retain(desk)["deleted"]
    assert (report["runs"], report["tool_effects"], report["webhooks"], report["usage"]) == (
        1, 1, 1, 1,
    )  # fmt: skip
    left = sql.execute("SELECT message FROM app.runs ORDER BY number").fetchall()
    assert left == [("First.",), ("Third.",)]
    answer = await desk.client.get(f"/threads/{thread}", headers=desk.headers())
    said = [m["content"] for m in answer.json()["messages"] if m["role"] == "user"]
    assert said == ["First.", "Second.", "Third."]
    assert count(sql, "app.tickets") == 3


async def test_the_result_of_a_run_that_can_be_resumed_is_kept(
    desk: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [call_tool("engine proxy port"), say("8000.")]
    await desk.chat("Which port?")
    sql.execute("UPDATE app.tool_effects SET created_at = now() - interval '6 d'")
    sql.execute("UPDATE app.runs SET status = 'interrupted'")
    assert retain(desk)["deleted"]["tool_effects"] == 0


def old_entries(sql, days: int, many: int) -> UUID:
    key = uuid4()
    sql.execute(
        "INSERT INTO app.audit_outbox (at, kind, key_id) SELECT now() - make_interval(days => %s),"
        " 'test.entry', %s FROM generate_series(1, %s)",
        (days, key, many),
    )
    while seal_batch(sql, VAULT):
        pass
    return key


def test_the_audits_old_end_goes_and_the_rest_still_verifies(
    prepared: AppProcess, configuration: dict[str, Any], sql
) -> None:
    configuration["retention"] = AGES
    app = AppProcess(prepared.folder, configuration)
    seal_batch(sql, VAULT)
    sql.execute("ALTER TABLE audit.entries DISABLE TRIGGER ALL; DELETE FROM audit.entries;"
                "ALTER TABLE audit.entries ENABLE TRIGGER ALL")  # fmt: skip
    key = old_entries(sql, 50, 5_200)
    old_entries(sql, 10, 30)
    sql.execute("UPDATE app.audit_keys SET created_at = now() - interval '60 d'")
    head = app.run("audit", "head")
    report = retain(app)["deleted"]
    assert report["audit_entries"] == 5_200
    assert report["audit_data_keys"] >= 1
    assert count(sql, "app.audit_keys", f"key_id = '{key}'") == 0
    assert json.loads(app.run("audit", "verify", "--head", head, "--json"))["ok"]
    assert (
        "older than what retention left"
        in app.complete("audit", "verify", "--head", "7:" + "a" * 64).stdout
    )
    app.run("keys", "create", "--name", "next")  # and the chain goes on
    seal_batch(sql, VAULT)
    assert "entries hold" in app.run("audit", "verify")


def test_audit_days_below_thirty_are_refused(
    prepared: AppProcess, configuration: dict[str, Any]
) -> None:
    configuration["retention"] = {"audit_days": 29}
    done = AppProcess(prepared.folder, configuration).complete("check")
    assert done.returncode == 2
    assert "retention.audit_days: must be 0 or at least 30" in done.stderr


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def many_old_threads(sql, many: int) -> None:
    sql.execute(
        "INSERT INTO app.threads (id, key_id, created_at)"
        " SELECT gen_random_uuid(), id, now() - interval '90 d' FROM"
        " (SELECT id FROM app.api_keys WHERE name = 'test') AS key, generate_series(1, %s)",
        (many,),
    )


def test_of_two_at_once_one_works_and_one_says_so(
    prepared: AppProcess, configuration: dict[str, Any], sql
) -> None:
    configuration["retention"] = AGES
    app = AppProcess(prepared.folder, configuration)
    many_old_threads(sql, 500)
    processes = [app.command("retention", "run") for _ in range(3)]
    outs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert count(sql, "app.threads") == 0
    sql.execute("SELECT pg_advisory_lock(%s)", (0x52657465,))
    assert "another retention run is under way" in app.run("retention", "run")
    assert any("threads: 500 gone" in out for out in outs)


def test_a_run_killed_at_any_instant_is_gone_on_with(
    prepared: AppProcess, configuration: dict[str, Any], sql
) -> None:
    configuration["retention"] = AGES
    app = AppProcess(prepared.folder, configuration)
    many_old_threads(sql, 3_000)
    kills = 0
    for _ in range(4):
        left = count(sql, "app.threads")
        process = app.command("retention", "run")
        wait_for(lambda: process.poll() is not None or count(sql, "app.threads") < left)  # noqa: B023
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills >= 2
    assert retain(app)["deleted"]["threads"] > 0
    assert count(sql, "app.threads") == 0
    assert retain(app)["deleted"]["threads"] == 0
    assert "hold" in app.run("audit", "verify")


def test_a_store_that_fails_leaves_the_others_to_be_done(
    prepared: AppProcess, configuration: dict[str, Any], sql
) -> None:
    configuration["retention"] = AGES
    app = AppProcess(prepared.folder, configuration)
    many_old_threads(sql, 3)
    sql.execute("REVOKE DELETE ON app.webhooks FROM agent_app")
    done = app.complete("retention", "run", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert "permission denied" in report["failed"]["webhooks"]
    assert report["deleted"]["usage"] == 0
