"""Tickets: once per call, and webhooks that arrive in the end."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from app_process import AppProcess
from data_servers import PASSWORD
from scripted_engine import USAGE, Hold, ScriptedEngine, chunk, say
from webhook_receiver import Receiver, arrived

from agent_app.config import Database
from agent_app.state.database import make_pool
from agent_app.state.tickets import Ticket, Tickets
from agent_app.state.webhooks import Webhooks

SECRET = "hook-secret"


@pytest.fixture
def receiver(configuration: dict[str, Any]) -> Receiver:
    made = Receiver()
    configuration["tools"] = {"tickets": {"webhook_url": made.url}}
    return made


@pytest.fixture
async def desk(receiver: Receiver, prepared: AppProcess) -> AppProcess:
    (prepared.folder / "credentials" / "tools_ticket_webhook_secret").write_text(SECRET)
    await prepared.start()
    return prepared


def open_ticket(title: str) -> list[Any]:
    arguments = json.dumps({"title": title, "body": "It smokes."})
    function = {"name": "create_ticket", "arguments": arguments}
    delta = {"tool_calls": [{"index": 0, "id": "call_0", "function": function}]}
    return [chunk(delta), chunk(reason="tool_calls"), USAGE]


async def test_a_ticket_is_posted_signed_and_again_after_a_failure(
    desk: AppProcess, receiver: Receiver, engine: ScriptedEngine, sql
) -> None:
    receiver.statuses = [503]
    async with receiver.serving():
        engine.queue = [open_ticket("Fan"), say("Done.")]
        heard = await desk.chat("Report the fan.")
        assert heard.of("tool")[1]["result"] == "ticket 1 is open"
        await arrived(sql)
    assert len(receiver.heard) == 2
    assert len(set(receiver.ids())) == 1
    receiver.assert_signed(SECRET)
    assert receiver.bodies()[0]["ticket"]["title"] == "Fan"
    listed = json.loads(desk.run("tickets", "list", "--json"))
    assert [(t["title"], t["webhook"]) for t in listed] == [("Fan", "delivered")]


async def test_a_webhook_survives_sigkill_in_mid_post_and_comes_again_under_its_id(
    desk: AppProcess, receiver: Receiver, engine: ScriptedEngine, sql
) -> None:
    receiver.hold = Hold()
    async with receiver.serving():
        engine.queue = [open_ticket("Disk"), say("Done.")]
        await desk.chat("Report the disk.")
        async with asyncio.timeout(5):
            await receiver.hold.reached.wait()
        await desk.kill()
        receiver.hold.release.set()
        receiver.hold = None
        await desk.start()
        await arrived(sql)
    assert len(receiver.heard) == 2
    assert len(set(receiver.ids())) == 1


async def test_what_the_release_before_wrote_into_its_outbox_is_delivered(
    desk: AppProcess, receiver: Receiver, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [open_ticket("Disk"), say("Done.")]
    await desk.chat("Report the disk.")
    async with receiver.serving():
        await arrived(sql)
        sql.execute("SET ROLE agent_app; DELETE FROM app.webhook_outbox")
        sql.execute(
            "INSERT INTO app.webhook_outbox (ticket_id, body, next_at)"
            " SELECT id, '{\"old\": true}', now() + interval '1 hour' FROM app.tickets"
        )
        claimed = sql.execute(  # as its courier does
            "UPDATE app.webhook_outbox SET attempts = attempts + 1, next_at = now()"
            " WHERE id = (SELECT id FROM app.webhook_outbox WHERE delivered_at IS NULL"
            " AND given_up_at IS NULL ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)"
            " RETURNING attempts"
        )
        assert claimed.fetchone() == (1,)
        sql.execute("RESET ROLE")
        await arrived(sql)
    assert receiver.bodies()[-1] == {"old": True}


async def test_the_same_call_makes_one_ticket_even_if_its_effect_was_lost(
    configuration: dict[str, Any], sql
) -> None:
    pool = make_pool(Database(**configuration["database"]), PASSWORD)
    await pool.open()
    tickets, run, ticket = Tickets(pool), uuid4(), Ticket("Fan", "Smoke", "high")
    webhooks = Webhooks(pool, owner="test")

    async def create() -> int:
        return await tickets.create(ticket, run_id=run, call_id="c", thread_id=None, webhook=True)

    numbers = await asyncio.gather(*(create() for _ in range(8)))
    claims = await asyncio.gather(*(webhooks.claim(["ticket"], full=[]) for _ in range(4)))
    mine = next(claim for claim in claims if claim)
    assert await webhooks.failed(mine, "status 500", most=1, pause=True)
    await pool.close()
    assert len(set(numbers)) == 1
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
    assert len([claim for claim in claims if claim]) == 1
    gone = "SELECT given_up_at IS NOT NULL, last_error FROM app.webhooks"
    assert sql.execute(gone).fetchall() == [(True, "status 500")]


async def test_a_ticket_without_a_title_is_explained_to_the_model(
    desk: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [open_ticket(" "), say("Sorry.")]
    heard = await desk.chat("Report nothing.")
    assert not heard.of("tool")[1]["ok"]
    assert "title must be a text" in heard.of("tool")[1]["result"]
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (0,)
