"""Tickets: once per call, and webhooks that arrive in the end."""

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import uvicorn
from app_process import AppProcess
from data_servers import PASSWORD, free_port
from scripted_engine import USAGE, ScriptedEngine, chunk, say
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_app.config import Database
from agent_app.state.database import make_pool
from agent_app.state.tickets import Ticket, Tickets

SECRET = "hook-secret"


class Receiver:
    """A webhook's other end, which answers the statuses it was given and then 200."""

    def __init__(self) -> None:
        self.port = free_port()
        self.statuses: list[int] = []
        self.heard: list[tuple[dict[str, str], bytes]] = []

    async def _take(self, request: Request) -> Response:
        self.heard.append((dict(request.headers), await request.body()))
        return Response(status_code=self.statuses.pop(0) if self.statuses else 200)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = Starlette(routes=[Route("/hook", self._take, methods=["POST"])])
        server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_level="critical", lifespan="off")
        )
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            await task


@pytest.fixture
def receiver(configuration: dict[str, Any]) -> Receiver:
    made = Receiver()
    configuration["tools"] = {"tickets": {"webhook_url": f"http://127.0.0.1:{made.port}/hook"}}
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


async def arrived(sql, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while sql.execute(
            "SELECT count(*) FROM app.webhook_outbox WHERE delivered_at IS NULL"
        ).fetchone() != (0,):
            await asyncio.sleep(0.05)


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
    assert receiver.heard[0][0]["x-webhook-id"] == receiver.heard[1][0]["x-webhook-id"]
    for headers, body in receiver.heard:
        text = headers["x-webhook-timestamp"].encode() + b"." + body
        wanted = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
        assert headers["x-webhook-signature"] == f"sha256={wanted}"
    assert json.loads(receiver.heard[0][1])["ticket"]["title"] == "Fan"
    listed = json.loads(desk.run("tickets", "list", "--json"))
    assert [(t["title"], t["webhook"]) for t in listed] == [("Fan", "delivered")]


async def test_a_webhook_survives_the_death_of_the_process_that_claimed_it(
    desk: AppProcess, receiver: Receiver, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [open_ticket("Disk"), say("Done.")]
    await desk.chat("Report the disk.")
    await desk.kill()
    # As a process leaves it that died between claim and post.
    sql.execute("UPDATE app.webhook_outbox SET attempts = 1, next_at = now() + interval '1 s'")
    async with receiver.serving():
        await desk.start()
        await arrived(sql)
    assert len(receiver.heard) == 1


async def test_the_same_call_makes_one_ticket_even_if_its_effect_was_lost(
    configuration: dict[str, Any], sql
) -> None:
    pool = make_pool(Database(**configuration["database"]), PASSWORD)
    await pool.open()
    tickets, run, ticket = Tickets(pool), uuid4(), Ticket("Fan", "Smoke", "high")

    async def create() -> int:
        return await tickets.create(ticket, run_id=run, call_id="c", thread_id=None, webhook=True)

    numbers = await asyncio.gather(*(create() for _ in range(8)))
    claims = await asyncio.gather(*(tickets.claim() for _ in range(4)))
    mine = next(claim for claim in claims if claim)
    await tickets.failed(mine, "status 500", most=1)
    await pool.close()
    assert len(set(numbers)) == 1
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)
    assert len([claim for claim in claims if claim]) == 1
    gone = "SELECT given_up_at IS NOT NULL, last_error FROM app.webhook_outbox"
    assert sql.execute(gone).fetchall() == [(True, "status 500")]


async def test_a_ticket_without_a_title_is_explained_to_the_model(
    desk: AppProcess, engine: ScriptedEngine, sql
) -> None:
    engine.queue = [open_ticket(" "), say("Sorry.")]
    heard = await desk.chat("Report nothing.")
    assert not heard.of("tool")[1]["ok"]
    assert "title must be a text" in heard.of("tool")[1]["result"]
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (0,)
