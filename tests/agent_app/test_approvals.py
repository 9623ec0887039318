"""A person approves a tool call or does not, and whatever dies meanwhile, it runs once or never."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from app_process import AppProcess, Heard
from audited import sealed
from mcp_shop import Shop
from scripted_engine import Hold, ScriptedEngine, call_tool, call_tools, say

TICKET = {"title": "Refund 7", "body": "Order 7 wants its money."}
KILLS = 8
REFUND = ("shop__refund", {"order": 7, "amount": 20})


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop")


@pytest.fixture
def configuration(configuration: dict[str, Any], shop: Shop) -> dict[str, Any]:
    configuration["limits"]["lease_seconds"] = 2
    configuration["tools"] = {
        "tickets": {},
        "mcp": {"shop": shop.settings(approval=["refund", "slow_refund"])},
        "approval": ["create_ticket"],
    }
    return configuration


def other_key(app: AppProcess, *options: str) -> str:
    return app.run("keys", "create", "--name", f"k{'-'.join(options)[-7:]}", *options)


async def waiting(app: AppProcess, engine: ScriptedEngine, *calls: tuple[str, Any]) -> Heard:
    engine.queue = [call_tools(*(calls or (REFUND,)))]
    heard = await app.chat("Refund order 7.")
    assert heard.of("done")[0]["finish_reason"] == "approval", heard.events
    return heard


async def decide(
    app: AppProcess, heard: Heard, decision: str, *, call: int = 0, key: str = "", note: str = ""
) -> Any:
    path = f"/threads/{heard.thread_id}/approvals/{heard.of('approval')[call]['id']}"
    headers = {"Authorization": f"Bearer {key or app.key}"}
    body = {"decision": decision, "note": note}
    return await app.client.post(path, json=body, headers=headers)


async def resume(app: AppProcess, heard: Heard) -> Heard:
    return await app.chat(thread_id=heard.thread_id, resume=True)


def status(sql: Any) -> list[str]:
    return [row[0] for row in sql.execute("SELECT status FROM app.runs ORDER BY number")]


async def listed(app: AppProcess, heard: Heard) -> list[dict[str, Any]]:
    path = f"/threads/{heard.thread_id}/approvals"
    answer = await app.client.get(path, headers=app.headers())
    assert answer.status_code == 200, answer.text
    return list(answer.json()["approvals"])


async def test_a_call_waits_until_it_is_approved_and_then_runs_once(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    heard = await waiting(app, engine)
    assert heard.names() == ["approval", "usage", "done"]
    asked = heard.of("approval")[0]
    assert (asked["name"], asked["arguments"]) == (REFUND[0], '{"order": 7, "amount": 20}')
    assert status(sql) == ["waiting"]
    assert shop.effects() == []
    again = await resume(app, heard)  # nobody has decided: it waits on
    assert again.of("approval") == heard.of("approval") and shop.effects() == []
    assert (await decide(app, heard, "approve")).json()["status"] == "approved"
    assert shop.effects() == []  # the decision alone does nothing
    engine.queue = [say("Done.")]
    done = await resume(app, heard)
    assert done.names() == ["tool", "tool", "token", "usage", "done"]
    assert done.of("tool")[1]["result"] == "order 7 refunded"
    assert shop.effects() == ["refund 7 20"]
    assert status(sql) == ["done"]
    assert (await resume(app, heard)).of("done")[0]["replayed"]
    assert shop.effects() == ["refund 7 20"]
    roles = [message["role"] for message in engine.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "tool"]


async def test_a_denied_call_is_not_made_and_the_model_is_told_why(
    app: AppProcess, engine: ScriptedEngine, shop: Shop
) -> None:
    heard = await waiting(app, engine)
    await decide(app, heard, "deny", note="Order 7 is mine.")
    engine.queue = [say("Sorry.")]
    done = await resume(app, heard)
    assert done.of("done")[0]["content"] == "Sorry."
    told = engine.requests[-1]["messages"][-1]["content"]
    assert "a person denied this call" in told and "Order 7 is mine." in told
    assert shop.effects() == []


async def test_a_decision_is_made_once(app: AppProcess, engine: ScriptedEngine, sql) -> None:
    heard = await waiting(app, engine)
    assert (await decide(app, heard, "deny")).status_code == 200
    assert (await decide(app, heard, "deny")).status_code == 200
    other = await decide(app, heard, "approve")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "already_decided")
    assert sql.execute("SELECT decision FROM app.approvals").fetchall() == [("deny",)]
    assert len(await sealed(app, "approval.deny")) == 1
    assert len(await sealed(app, "approval.request")) == 1


async def test_of_two_decisions_at_once_one_stands(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    heard = await waiting(app, engine)
    answers = await asyncio.gather(
        *(decide(app, heard, "approve" if n % 2 else "deny") for n in range(10))
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 5 + [409] * 5


async def test_an_undecided_call_expires_and_counts_as_denied(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine, shop: Shop
) -> None:
    import yaml

    configuration["approvals"] = {"expire_seconds": 1}
    prepared.config.write_text(yaml.safe_dump(configuration))
    await prepared.start()
    heard = await waiting(prepared, engine)
    await asyncio.sleep(1.1)
    assert [a["status"] for a in await listed(prepared, heard)] == ["expired"]
    late = await decide(prepared, heard, "approve")
    assert late.status_code == 409 and "expired" in late.json()["error"]["message"]
    engine.queue = [say("Nobody said yes.")]
    done = await resume(prepared, heard)
    assert "nobody approved" in engine.requests[-1]["messages"][-1]["content"]
    assert done.names()[-1] == "done" and shop.effects() == []


async def test_a_new_message_voids_what_waited(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    heard = await waiting(app, engine)
    engine.queue = [say("As you like.")]
    await app.chat("Never mind.", thread_id=heard.thread_id)
    assert status(sql) == ["abandoned", "done"]
    assert [a["status"] for a in await listed(app, heard)] == ["void"]
    assert (await decide(app, heard, "approve")).status_code == 409
    roles = [message["role"] for message in engine.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "tool", "user"]
    assert shop.effects() == []


async def test_of_several_calls_those_that_need_nobody_run_first(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    calls = (REFUND, ("shop__stock", {"item": "hat"}), ("create_ticket", TICKET),
             ("search_knowledge", {"query": "port"}))  # fmt: skip
    heard = await waiting(app, engine, *calls)
    assert [data["name"] for data in heard.of("approval")] == ["shop__refund", "create_ticket"]
    assert [d["name"] for d in heard.of("tool") if d["phase"] == "end"] == [
        "shop__stock",
        "search_knowledge",
    ]
    await decide(app, heard, "approve", call=1)
    half = await resume(app, heard)  # the ticket is written; the refund still waits
    assert [data["name"] for data in half.of("approval")] == ["shop__refund"]
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
    await decide(app, heard, "deny", call=0)
    engine.queue = [say("One of two.")]
    done = await resume(app, heard)
    assert done.of("done")[0]["content"] == "One of two."
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
    assert shop.effects() == ["stock hat"]
    last = engine.requests[-1]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant", "tool", "tool", "tool", "tool"]
    assert [m["tool_call_id"] for m in last[2:]] == [c["id"] for c in last[1]["tool_calls"]]


async def test_only_those_who_may_see_and_decide(
    app: AppProcess, engine: ScriptedEngine, shop: Shop
) -> None:
    heard = await waiting(app, engine)
    stranger, approver = other_key(app), other_key(app, "--scope", "approve")
    assert (await decide(app, heard, "approve", key=stranger)).status_code == 404
    path = f"/threads/{heard.thread_id}/approvals"
    as_stranger = {"Authorization": f"Bearer {stranger}"}
    as_approver = {"Authorization": f"Bearer {approver}"}
    assert (await app.client.get(path, headers=as_stranger)).status_code == 404
    assert (await app.client.get("/approvals", headers=as_stranger)).status_code == 403
    everything = (await app.client.get("/approvals", headers=as_approver)).json()["approvals"]
    assert [item["thread_id"] for item in everything] == [heard.thread_id]
    assert (await app.client.get(path)).status_code == 401
    unknown = f"{path}/000000000"
    body = {"decision": "approve"}
    assert (await app.client.post(unknown, json=body, headers=app.headers())).status_code == 404
    assert (await decide(app, heard, "approve", key=approver)).status_code == 200
    assert (await app.client.get("/approvals", headers=as_approver)).json()["approvals"] == []


async def test_where_the_scope_decides_the_agents_own_key_does_not(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    import yaml

    configuration["approvals"] = {"by": "scope"}
    prepared.config.write_text(yaml.safe_dump(configuration))
    await prepared.start()
    heard = await waiting(prepared, engine)
    own = await decide(prepared, heard, "approve")
    assert (own.status_code, own.json()["error"]["code"]) == (403, "insufficient_scope")
    assert [a["status"] for a in await listed(prepared, heard)] == ["pending"]
    approver = other_key(prepared, "--scope", "approve")
    assert (await decide(prepared, heard, "approve", key=approver)).status_code == 200


async def test_a_wrong_call_is_refused_before_anybody_is_asked(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [call_tools(("shop__refund", {"order": "all"}), ("create_ticket", {})), say("?")]
    heard = await app.chat("Go.")
    assert heard.of("approval") == [] and heard.names()[-1] == "done"
    assert all("wrong arguments" in d["result"] for d in heard.of("tool") if d["phase"] == "end")
    assert sql.execute("SELECT count(*) FROM app.approvals").fetchone() == (0,)


async def test_what_a_person_sees_is_what_runs(
    app: AppProcess, engine: ScriptedEngine, shop: Shop
) -> None:
    twice = '{"order": 7, "amount": 1, "amount": 9000}'  # a reader of the text would see 1 first
    heard = await waiting(app, engine, ("shop__refund", twice))
    assert heard.of("approval")[0]["arguments"] == '{"order": 7, "amount": 9000}'
    turned = '{"title": "safe\u202egnahtyna\u200b", "body": "x"}'
    heard = await waiting(app, engine, ("create_ticket", turned))
    assert "\\u202e" in heard.of("approval")[0]["arguments"]
    assert heard.of("approval")[0]["arguments"].isascii()


async def test_an_approval_is_void_when_tool_or_arguments_are_not_what_was_shown(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    heard = await waiting(app, engine)
    await decide(app, heard, "approve")
    sql.execute("UPDATE app.approvals SET digest = 'of something else'")
    sql.execute("COMMIT")
    engine.queue = [say("Asked anew.")]
    await resume(app, heard)
    assert "not those that were shown" in engine.requests[-1]["messages"][-1]["content"]
    assert shop.effects() == []
    assert await sealed(app, "approval.mismatch")


async def test_a_tool_that_changed_after_the_approval_does_not_run(
    app: AppProcess, engine: ScriptedEngine, shop: Shop
) -> None:
    heard = await waiting(app, engine)
    await decide(app, heard, "approve")
    engine.queue = [call_tools(("shop__change", {})), say("ok")]
    await app.chat("Change.")  # another thread has the server change its tools
    await sealed(app, "mcp.tool_changed")
    engine.queue = [say("Asked anew.")]
    await resume(app, heard)
    told = engine.requests[-1]["messages"][-1]["content"]
    assert "wrong arguments" in told or "not those that were shown" in told
    assert not [line for line in shop.effects() if "refund" in line]


async def test_a_stateless_request_cannot_wait_and_is_told_so(
    app: AppProcess, engine: ScriptedEngine, shop: Shop
) -> None:
    engine.queue = [call_tools(REFUND), say("Use a thread.")]
    async with openai.AsyncOpenAI(base_url=f"{app.url}/v1", api_key=app.key) as client:
        answer = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Refund."}]
        )
    assert answer.choices[0].message.content == "Use a thread."
    assert "keeps no thread" in engine.requests[-1]["messages"][-1]["content"]
    assert shop.effects() == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_openai_client_is_told_which_call_of_which_thread_waits(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, stream: bool, sql
) -> None:
    engine.queue = [call_tools(REFUND)]
    thread = "6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e"
    body: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Refund."}],
        "metadata": {"thread_id": thread},
    }
    async with openai.AsyncOpenAI(
        base_url=f"{app.url}/v1", api_key=app.key, max_retries=0
    ) as client:
        with pytest.raises(openai.APIError) as caught:
            answer = await client.chat.completions.create(**body, stream=stream)
            async for _ in answer:
                pass
        assert caught.value.code == "approval_required"
        call = sql.execute("SELECT call_id FROM app.approvals").fetchone()[0]
        assert thread in caught.value.message and call in caught.value.message
        assert status(sql) == ["waiting"]
        path = f"/threads/{thread}/approvals/{call}"
        await app.client.post(path, json={"decision": "approve"}, headers=app.headers())
        engine.queue = [say("Refunded.")]
        done = await client.chat.completions.create(**body)
    assert done.choices[0].message.content == "Refunded."
    assert shop.effects() == ["refund 7 20"]


async def test_a_thread_is_deleted_with_what_waits_in_it(
    app: AppProcess, engine: ScriptedEngine, sql
) -> None:
    heard = await waiting(app, engine)
    answer = await app.client.delete(f"/threads/{heard.thread_id}", headers=app.headers())
    assert answer.status_code == 200
    assert sql.execute("SELECT count(*) FROM app.approvals").fetchone() == (0,)


# ---- SIGKILL ---------------------------------------------------------------------------------


async def restarted(app: AppProcess) -> None:
    await app.kill()
    await app.start()


async def test_killed_before_the_request_is_written_it_is_asked_once_after_the_restart(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    sql.execute("BEGIN; LOCK TABLE app.approvals")
    engine.queue = [call_tools(REFUND)]
    async with app.streaming({"message": "Refund order 7."}) as (heard, _events):
        async with asyncio.timeout(10):
            while not engine.requests or engine.in_flight:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        await app.kill()
    sql.execute("ROLLBACK")
    await app.start()
    again = await resume(app, heard)
    assert again.of("done")[0]["finish_reason"] == "approval"
    assert sql.execute("SELECT count(*) FROM app.approvals").fetchone() == (1,)
    await decide(app, again, "approve")
    engine.queue = [say("Done.")]
    await resume(app, heard)
    assert shop.effects() == ["refund 7 20"]


@pytest.mark.parametrize("decision", ["approve", "deny"])
@pytest.mark.parametrize("when", ["before the decision", "after the decision"])
async def test_killed_while_it_waits_it_waits_on(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, when: str, decision: str
) -> None:
    heard = await waiting(app, engine)
    if when == "before the decision":
        await restarted(app)
        assert (await decide(app, heard, decision)).status_code == 200
    else:
        assert (await decide(app, heard, decision)).status_code == 200
        await restarted(app)
    engine.queue = [say("On we go.")]
    done = await resume(app, heard)
    assert done.of("done")[0]["content"] == "On we go."
    assert shop.effects() == (["refund 7 20"] if decision == "approve" else [])


async def test_killed_in_mid_call_it_is_not_made_again_and_the_model_knows(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    heard = await waiting(app, engine, ("shop__slow_refund", {"order": 7}))
    await decide(app, heard, "approve")
    body = {"thread_id": heard.thread_id, "resume": True}
    async with app.streaming(body) as (_, _events):
        await shop.did("slow_refund 7")
        old = shop.pid
        await app.kill()
    async with asyncio.timeout(5):  # the server does not outlive the app
        while Path(f"/proc/{old}").exists() and shop.alive():
            await asyncio.sleep(0.05)
    await app.start()
    engine.queue = [say("I do not know.")]
    done = await resume(app, heard)
    assert done.of("done")[0]["content"] == "I do not know."
    assert "nobody knows whether it took effect" in engine.requests[-1]["messages"][-1]["content"]
    assert shop.effects() == ["slow_refund 7"]
    assert (await resume(app, heard)).of("done")[0]["replayed"]


STALL = """
CREATE FUNCTION app.stall() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
CREATE TRIGGER stall BEFORE UPDATE ON app.tool_effects FOR EACH ROW EXECUTE FUNCTION app.stall()
"""
FREE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO app.tool_%';
DROP TRIGGER stall ON app.tool_effects
"""


async def test_killed_between_a_calls_effect_and_its_record_it_is_not_made_again(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    heard = await waiting(app, engine)
    await decide(app, heard, "approve")
    sql.execute(STALL)  # the call's result cannot be written down
    async with app.streaming({"thread_id": heard.thread_id, "resume": True}) as (_, _events):
        await shop.did("refund 7 20")
        await asyncio.sleep(0.3)
        await app.kill()
    sql.execute(FREE)
    assert sql.execute("SELECT result FROM app.tool_effects").fetchall() == [(None,)]
    await app.start()
    engine.queue = [say("Done or not.")]
    done = await resume(app, heard)
    assert done.names()[-1] == "done"
    assert "nobody knows whether it took effect" in engine.requests[-1]["messages"][-1]["content"]
    assert shop.effects() == ["refund 7 20"]


async def test_a_call_that_only_reads_is_made_again_after_a_kill(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    engine.queue = [call_tools(("shop__slow_stock", {"item": "hat"}))]
    async with app.streaming({"message": "How many hats?"}) as (heard, _events):
        await shop.did("slow begins hat")
        await app.kill()
    await app.start()
    async with app.streaming({"thread_id": heard.thread_id, "resume": True}) as (_, _events):
        async with asyncio.timeout(10):
            while shop.effects().count("slow begins hat") < 2:
                await asyncio.sleep(0.05)


async def test_a_client_that_leaves_in_mid_call_cancels_it_at_the_server(
    app: AppProcess, engine: ScriptedEngine, shop: Shop
) -> None:
    engine.queue = [call_tools(("shop__slow_stock", {"item": "hat"}))]
    async with app.streaming({"message": "How many hats?"}) as (_, _events):
        await shop.did("slow begins hat")
    await shop.did("slow cancelled hat", 5)


async def test_at_random_instants_of_death_each_refund_is_made_at_most_once(
    app: AppProcess, engine: ScriptedEngine, shop: Shop, sql
) -> None:
    import random

    random.seed(4)
    engine.default = lambda body: (
        say("Done.") if body["messages"][-1]["role"] == "tool" else call_tools(REFUND)
    )
    for _ in range(KILLS):
        heard = await app.chat("Refund order 7.")
        await decide(app, heard, "approve")
        body = {"thread_id": heard.thread_id, "resume": True}
        resuming = asyncio.create_task(app.chat(**body))
        await asyncio.sleep(random.uniform(0, 0.06))
        await restarted(app)
        await asyncio.gather(resuming, return_exceptions=True)
        done = await resume(app, heard)
        assert done.names()[-1] == "done", done.events
    assert len(shop.effects()) <= KILLS
    told = sql.execute("SELECT ok, result FROM app.tool_effects").fetchall()
    assert len(told) == KILLS
    known = sum(1 for ok, _ in told if ok)
    assert known <= len(shop.effects()) <= KILLS
    assert status(sql) == ["done"] * KILLS


async def test_a_call_that_takes_too_long_is_cancelled_and_not_made_again(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine, shop: Shop, sql
) -> None:
    import yaml

    configuration["tools"]["mcp"]["shop"] |= {"seconds": 1, "approval": []}
    prepared.config.write_text(yaml.safe_dump(configuration))
    await prepared.start()
    hold = Hold()
    engine.queue = [call_tools(("shop__slow_refund", {"order": 7})), [hold], say("Not known.")]
    async with prepared.streaming({"message": "Refund."}) as (heard, events):
        async for name in events:
            if name == "tool" and heard.of("tool")[-1]["phase"] == "end":
                break
        async with asyncio.timeout(10):
            await hold.reached.wait()
        await prepared.kill()
    hold.release.set()
    end = heard.of("tool")[-1]
    assert "longer than 1 s; whether it took effect is not known" in end["result"]
    await prepared.start()
    assert (await resume(prepared, heard)).of("done")[0]["content"] == "Not known."
    assert shop.effects() == ["slow_refund 7"]


async def test_a_dead_server_degrades_readiness_and_nothing_more(
    prepared: AppProcess, configuration: dict[str, Any], engine: ScriptedEngine
) -> None:
    import yaml

    configuration["tools"]["mcp"]["gone"] = {"url": "http://127.0.0.1:9/mcp", "tools": ["x"]}
    prepared.config.write_text(yaml.safe_dump(configuration))
    await prepared.start()
    async with asyncio.timeout(60):
        while True:
            answer = await prepared.client.get("/ready")
            assert answer.status_code == 200
            if answer.json()["checks"].get("mcp_shop") == "ok":  # its program has started
                break
            await asyncio.sleep(0.1)
    assert "ConnectError" in answer.json()["degraded"]["mcp_gone"]
    async with httpx2.AsyncClient(trust_env=False) as client:
        metrics = await client.get(f"http://127.0.0.1:{prepared.metrics_port}/metrics")
    assert 'agent_app_mcp_server_up{server="shop"} 1.0' in metrics.text
    assert 'agent_app_mcp_server_up{server="gone"} 0.0' in metrics.text
    engine.queue = [call_tool("port"), say("Fine.")]
    assert (await prepared.chat("Hi.")).names()[-1] == "done"
    names = {tool["function"]["name"] for tool in engine.requests[0]["tools"]}
    assert "shop__stock" in names and "gone__x" not in names and "shop__forbidden" not in names
