"""Webhooks of jobs: where they may go, who signs them, and how failures are borne."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from app_process import AppProcess
from data_servers import Postgres
from job_client import post, submit, until
from scripted_engine import ScriptedEngine, say
from webhook_receiver import Receiver, arrived

from agent_app.state.migrations.versions import v0004_jobs
from agent_app.webhooks.signature import sign
from tests.ports import free_port

README = (Path(v0004_jobs.__file__).parents[3] / "README.md").read_text()


@pytest.fixture
def receiver(configuration: dict[str, Any]) -> Receiver:
    made = Receiver()
    configuration["jobs"] = {"webhook_hosts": ["127.0.0.0/24"], "webhook_attempts": 3}
    return made


@pytest.fixture
async def app(receiver: Receiver, prepared: AppProcess) -> AppProcess:
    (prepared.folder / "credentials" / "webhook_secret").write_text("hook-secret")
    await prepared.start()
    return prepared


def test_the_readme_has_a_signature_to_test_against() -> None:
    body = '{"type":"job.done"}'
    assert body in README
    assert sign("hook-secret", "1764000000", body) in README


async def test_the_end_of_a_job_is_told_signed_with_its_keys_own_secret(
    app: AppProcess, receiver: Receiver, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [say("All ", "done.")]
    async with receiver.serving():
        job = await submit(app, webhook_url=receiver.url)
        await until(app, job)
        await arrived(sql)
    (told,) = receiver.bodies()
    assert told["type"] == "job.done"
    assert (told["job"]["id"], told["job"]["result"]["content"]) == (job, "All done.")
    assert told["job"]["usage"]["total_tokens"] == 15
    secret = app.run("webhooks", "secret", "test")
    receiver.assert_signed(secret)
    app.run("keys", "create", "--name", "other")
    assert app.run("webhooks", "secret", "other") != secret
    listed = json.loads(app.run("webhooks", "list", "--json"))
    assert [(hook["state"], hook["job_id"]) for hook in listed] == [("delivered", job)]


async def test_cancelled_and_failed_jobs_are_told_too_and_a_long_result_is_left_out(
    app: AppProcess, receiver: Receiver, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [say("x" * 250_000)]
    poor = app.run("keys", "create", "--name", "poor", "--limit", "budget_hard=1")
    async with receiver.serving():
        long = await submit(app, webhook_url=receiver.url)
        assert len((await until(app, long))["result"]["content"]) == 250_000
        await until(app, await submit(app, "1.", poor, webhook_url=receiver.url), key=poor)
        await until(app, await submit(app, "2.", poor, webhook_url=receiver.url), key=poor)
        await arrived(sql)
    told = {body["job"]["status"]: body for body in receiver.bodies()}
    assert told["failed"]["type"] == "job.failed"
    assert told["failed"]["job"]["error"]["code"] == "insufficient_quota"
    bodies = [body for body in receiver.bodies() if body["job"]["id"] == long]
    assert (bodies[0]["job"]["result"], bodies[0]["job"]["result_left_out"]) == (None, True)


async def test_a_redirect_is_not_followed_and_a_delivery_given_up_can_be_had_again(
    app: AppProcess, receiver: Receiver, sql
) -> None:
    elsewhere = Receiver()
    receiver.statuses = [307, 302, 404]
    receiver.headers = {"Location": elsewhere.url}
    async with receiver.serving(), elsewhere.serving():
        await until(app, await submit(app, webhook_url=receiver.url))
        await arrived(sql)
        assert len(receiver.heard) == 3
        listed = json.loads(app.run("webhooks", "list", "--state", "given up", "--json"))
        assert [(hook["last_error"], hook["attempts"]) for hook in listed] == [("status 404", 3)]
        assert "status 404" in app.run("webhooks", "list")
        app.run("webhooks", "retry", listed[0]["id"])
        await arrived(sql)
    assert elsewhere.heard == []
    assert len(receiver.heard) == 4
    assert len(set(receiver.ids())) == 1
    done = app.complete("webhooks", "retry", listed[0]["id"])
    assert done.returncode == 1
    assert "was delivered" in done.stderr


async def test_a_dead_receiver_holds_up_nobody_else_and_is_not_asked_for_each_delivery(
    app: AppProcess, receiver: Receiver, sql
) -> None:
    dead = f"http://127.0.0.1:{free_port()}/dead"
    for n in range(12):
        await until(app, await submit(app, f"{n}.", webhook_url=dead))
    async with receiver.serving():
        began = asyncio.get_running_loop().time()
        await until(app, await submit(app, webhook_url=receiver.url))
        while not receiver.heard:
            await asyncio.sleep(0.02)
            assert asyncio.get_running_loop().time() - began < 3
    await asyncio.sleep(3)
    tried = sql.execute(
        "SELECT sum(attempts) FROM app.webhooks WHERE url = %s", (dead,)
    ).fetchone()[0]
    print(f"{tried} posts to the dead receiver with 12 deliveries waiting")
    assert tried <= 12
    paused = sql.execute("SELECT failures, next_at > now() FROM app.webhook_receivers").fetchone()
    assert paused is not None
    assert paused[0] >= 1


async def test_receivers_that_hang_leave_room_to_other_keys(
    app: AppProcess, receiver: Receiver, sql
) -> None:
    stuck = app.run("keys", "create", "--name", "stuck")
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for n in range(20):  # a URL each, so that the pause of one does not spare the others
        url = f"http://127.0.0.1:{port}/{n}"
        await until(app, await submit(app, f"{n}.", stuck, webhook_url=url), key=stuck)
    async with receiver.serving():
        began = asyncio.get_running_loop().time()
        await until(app, await submit(app, webhook_url=receiver.url))
        while not receiver.heard:
            await asyncio.sleep(0.02)
            assert asyncio.get_running_loop().time() - began < 3
    server.close()


async def test_a_receivers_certificate_is_checked_for_its_name_though_the_post_goes_to_an_address(
    receiver: Receiver, prepared: AppProcess, configuration: dict[str, Any], sql
) -> None:
    good, bad = Receiver(), Receiver()
    good.certificate = make_certificate(prepared.folder / "good", "localhost")
    bad.certificate = make_certificate(prepared.folder / "bad", "elsewhere.example.com")
    ca = prepared.folder / "ca.pem"
    ca.write_bytes(b"".join(Path(made.certificate[0]).read_bytes() for made in (good, bad)))
    configuration["jobs"]["webhook_hosts"] = ["localhost", "127.0.0.0/8", "::1/128"]
    configuration["tls_ca_file"] = str(ca)
    app = AppProcess(prepared.folder, configuration)
    (app.folder / "credentials" / "webhook_secret").write_text("hook-secret")
    app.key = prepared.key
    await app.start()
    async with good.serving(), bad.serving():
        for made in (good, bad):
            url = f"https://localhost:{made.port}/hook"
            await until(app, await submit(app, webhook_url=url))
        await arrived(sql, seconds=30)
    assert [headers["host"] for headers, _ in good.heard] == [f"localhost:{good.port}"]
    assert bad.heard == []
    given_up = sql.execute("SELECT last_error FROM app.webhooks WHERE given_up_at IS NOT NULL")
    assert given_up.fetchall() == [("ConnectError",)]
    await app.end()
    await app.client.aclose()


def make_certificate(folder: Path, name: str) -> tuple[str, str]:
    """Return files of a certificate for a name, which vouches for itself, and of its key."""
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_a_refused_webhook_keeps_the_job_from_being_taken_in(app: AppProcess, sql) -> None:
    answer = await post(app, {"message": "a", "webhook_url": "http://169.254.169.254/"})
    assert answer.status_code == 400
    assert "webhook_url" in answer.json()["error"]["message"]
    assert sql.execute("SELECT count(*) FROM app.jobs").fetchone() == (0,)


def test_the_migration_takes_over_what_waits_in_the_old_outbox(
    postgres: Postgres, prepared: AppProcess, configuration: dict[str, Any]
) -> None:
    name = f"rackhand_move_{os.getpid()}"
    postgres.make_database(name)
    try:
        configuration["database"]["name"] = name
        app = AppProcess(prepared.folder, configuration)
        with postgres.admin(name) as sql:
            _migrate_to(sql, "0003")
            sql.execute(
                "INSERT INTO app.tickets (run_id, tool_call_id, title, body, priority) SELECT"
                " gen_random_uuid(), n::text, 'Fan', 'Smoke', 'low' FROM generate_series(1, 3) n"
            )
            sql.execute(
                "INSERT INTO app.webhook_outbox (ticket_id, body, attempts, delivered_at)"
                " SELECT id, '{}', 1, CASE WHEN id = 1 THEN now() END FROM app.tickets"
            )
            before = sql.execute("SELECT id, ticket_id FROM app.webhook_outbox").fetchall()
            app.run("migrate")
            after = sql.execute("SELECT id, ticket_id FROM app.webhooks").fetchall()
            kinds = sql.execute(
                "SELECT kind, count(*), count(delivered_at) FROM app.webhooks GROUP BY kind"
            ).fetchall()
        assert sorted(map(str, after)) == sorted(map(str, before))
        assert kinds == [("ticket.created", 3, 1)]
    finally:
        postgres.drop_database(name)


def _migrate_to(sql: Any, last: str) -> None:
    """Bring a database to an older release's shape, as its own owner would."""
    from importlib import import_module

    versions = sorted(Path(v0004_jobs.__file__).parent.glob("v0*.py"))
    sql.execute("SET ROLE rackhand_owner")
    sql.execute("CREATE TABLE app.alembic_version (version_num varchar(32) PRIMARY KEY)")
    for path in versions:
        module = import_module(f"agent_app.state.migrations.versions.{path.stem}")
        if module.revision <= last:
            sql.execute(module.UP)
    sql.execute("INSERT INTO app.alembic_version VALUES (%s)", (last,))
    sql.execute("RESET ROLE")
