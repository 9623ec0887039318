import asyncio
import json

import httpx2
from app_process import AppProcess
from data_servers import Postgres, RedisServer
from scripted_engine import ScriptedEngine, Status


async def ask(app: AppProcess, key: str) -> int:
    response = await app.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    return response.status_code


async def test_keys_open_expire_and_are_revoked(app: AppProcess, sql) -> None:
    assert (await app.client.get("/v1/models")).status_code == 401
    assert await ask(app, "rh_wrong") == 401
    assert await ask(app, app.key) == 200
    made = json.loads(app.run("keys", "create", "--name", "guest", "--expires", "1h", "--json"))
    assert await ask(app, made["key"]) == 200
    stored = sql.execute("SELECT * FROM app.api_keys").fetchall()
    assert made["key"] not in str(stored)
    sql.execute("UPDATE app.api_keys SET expires_at = now() WHERE name = 'guest'")
    app.run("keys", "revoke", "test")
    await asyncio.sleep(5.1)  # the cache
    assert await ask(app, made["key"]) == 401
    assert await ask(app, app.key) == 401
    assert sql.execute("SELECT last_used_at IS NOT NULL FROM app.api_keys").fetchall() == [
        (True,),
        (True,),
    ]


async def test_a_key_without_the_scope_may_not_chat(app: AppProcess) -> None:
    key = app.run("keys", "create", "--name", "admin", "--scope", "admin")
    assert await ask(app, key) == 403


def test_a_second_live_key_of_a_name_is_refused_with_the_cure(prepared: AppProcess) -> None:
    process = prepared.command("keys", "create", "--name", "test")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "agent-app keys revoke test" in err
    assert "Traceback" not in err


async def ready(app: AppProcess) -> httpx2.Response:
    await asyncio.sleep(0.25)  # let the engine's last answer grow old
    return await app.client.get("/ready")


async def test_ready_names_what_is_down_and_recovers(
    app: AppProcess, postgres: Postgres, redis_server: RedisServer, engine: ScriptedEngine
) -> None:
    response = await ready(app)
    assert response.status_code == 200, response.text
    assert response.json()["checks"] == {
        "database": "ok", "redis_cache": "ok", "redis_state": "ok", "engine_demo": "ok",
    }  # fmt: skip
    redis_server.stop()
    response = await ready(app)
    assert response.status_code == 503
    assert set(response.json()["not_ready"]) == {"redis_cache", "redis_state"}
    redis_server.start()
    postgres.stop()
    response = await ready(app)
    assert response.status_code == 503
    assert set(response.json()["not_ready"]) == {"database"}
    refused = await app.client.post("/chat", json={"message": "Hi."}, headers=app.headers())
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "database_unavailable"
    assert (await app.client.get("/health")).status_code == 200
    postgres.start()
    for _ in range(40):
        if (response := await ready(app)).status_code == 200:
            break
    assert response.status_code == 200, response.text


async def test_ready_asks_the_engine_for_a_real_token(
    prepared: AppProcess, configuration, engine: ScriptedEngine
) -> None:
    configuration["models"]["demo"]["endpoints"] = ["http://127.0.0.1:1"]
    app = AppProcess(prepared.folder, configuration)
    await app.start()
    response = await ready(app)
    assert response.status_code == 503
    assert set(response.json()["not_ready"]) == {"engine_demo"}
    assert "connect" in response.json()["not_ready"]["engine_demo"]
    await app.end()
    await app.client.aclose()


async def test_many_who_ask_for_readiness_cost_one_token(
    prepared: AppProcess, configuration, engine: ScriptedEngine
) -> None:
    configuration["limits"]["ready_probe_seconds"] = 10
    app = AppProcess(prepared.folder, configuration)
    await app.start()
    await asyncio.gather(*(app.client.get("/ready") for _ in range(20)))
    assert engine.probes == 1
    await app.end()
    await app.client.aclose()


async def test_metrics_are_on_the_private_port_only(
    app: AppProcess, engine: ScriptedEngine
) -> None:
    engine.queue = [[Status(503)]]
    await app.chat("Hello.")
    assert (await app.client.get("/metrics")).status_code == 404
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"http://127.0.0.1:{app.metrics_port}/metrics")).text
    for line in (
        'agent_app_requests_total{method="POST",route="/chat",status="200"} 1.0',
        'agent_app_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'agent_app_tokens_total{kind="completion",model="demo"} 5.0',
        'agent_app_engine_failures_total{model="demo",reason="status_503"} 1.0',
        'agent_app_runs_total{model="demo",outcome="done"} 1.0',
        'agent_app_first_token_seconds_count{model="demo"} 1.0',
    ):
        assert line in page


async def test_documentation_is_off(app: AppProcess) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert (await app.client.get(path)).status_code == 404
