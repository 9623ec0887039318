"""SIGKILL at random instants of many turns: each resumes, each side effect is there once."""

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import psycopg
import pytest
from app_process import AppProcess, Heard
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row
from scripted_engine import USAGE, Hold, Pause, ScriptedEngine, call_tool, chunk, say

TURNS = 5  # under way at each kill, each at another place
TURN_SECONDS = 0.6  # about what one takes
WHOLE = ["user", "assistant", "tool", "assistant", "tool", "assistant"]


def ticket(title: str) -> dict[str, Any]:
    arguments = json.dumps({"title": title, "body": "Please look."})
    return {"name": "create_ticket", "arguments": arguments}


def calling(*functions: dict[str, Any], words: str = "") -> list[Any]:
    calls = [{"index": n, "id": "call", "function": f} for n, f in enumerate(functions)]
    text = [chunk({"content": words})] if words else []
    return [*text, chunk({"tool_calls": calls}), chunk(reason="tool_calls"), USAGE]


def order(body: dict[str, Any]) -> list[Any]:
    """Two tickets, one after the other, with text before, between and after."""
    name = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
    opened = sum(message["role"] == "tool" for message in body["messages"])
    if opened < 2:
        steps = calling(ticket(f"{name} {opened}"), words="Opening one. ")
    else:
        steps = say("Both ", "are ", "open.")
    return [step for one in steps for step in (Pause(0.03), one)]


def checkpoint(sql, postgres, database: str, thread: str) -> list[dict[str, Any]]:
    """Return the messages of the thread's newest checkpoint."""
    conninfo = f"host=127.0.0.1 port={postgres.port} user=postgres dbname={database}"
    with psycopg.connect(
        conninfo, autocommit=True, options="-c search_path=checkpoints", row_factory=dict_row
    ) as connection:
        found = PostgresSaver(connection).get_tuple({"configurable": {"thread_id": thread}})
    assert found is not None
    messages: list[dict[str, Any]] = found.checkpoint["channel_values"]["messages"]
    return messages


@pytest.fixture
async def shop(prepared: AppProcess, configuration) -> AsyncIterator[AppProcess]:
    """The app with tickets, not yet serving."""
    configuration["tools"] = {"tickets": {}}
    app = AppProcess(prepared.folder, configuration)
    app.key = prepared.key
    yield app
    if app.process is not None and app.process.is_alive():
        await app.kill()
    await app.client.aclose()


async def begin(app: AppProcess, thread: str, after: float) -> Heard:
    """Order in a thread after so many seconds; hear what comes until the process dies."""
    await asyncio.sleep(after)
    heard = Heard()
    with contextlib.suppress(httpx2.TransportError):
        body = {"message": f"Order {thread}", "thread_id": thread}
        async with app.client.stream("POST", "/chat", json=body, headers=app.headers()) as response:
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    heard.events.append((line[7:], {}))
    return heard


async def kill_and_resume(app: AppProcess, dice: random.Random) -> list[str]:
    """Kill the app in the midst of several turns; then finish all of them; return their threads."""
    threads = [str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(TURNS)]
    turns = [
        asyncio.create_task(begin(app, thread, dice.uniform(0, TURN_SECONDS))) for thread in threads
    ]
    await asyncio.sleep(dice.uniform(0.05, 2 * TURN_SECONDS))
    await app.kill()
    for turn in turns:
        turn.cancel()
    await asyncio.gather(*turns, return_exceptions=True)
    await app.start()
    ends = await asyncio.gather(*(finish(app, thread) for thread in threads))
    assert [heard.names()[-1] for heard in ends] == ["done"] * TURNS
    return threads


async def finish(app: AppProcess, thread: str) -> Heard:
    """Resume a turn, or ask for the first time where the request never came."""
    found = await app.client.get(f"/threads/{thread}", headers=app.headers())
    if found.status_code == 404:
        return await app.chat(f"Order {thread}", thread_id=thread)
    return await app.chat(resume=True, thread_id=thread)


async def survive(app: AppProcess, engine: ScriptedEngine, sql, read: Any, *, kills: int) -> None:
    engine.default = order
    await app.start()
    dice = random.Random(20261125)
    threads = [t for _ in range(kills) for t in await kill_and_resume(app, dice)]
    (resumed,) = sql.execute("SELECT count(*) FROM app.runs WHERE attempt > 1").fetchone()
    assert resumed >= kills, "the kills missed the turns"
    for thread in threads:
        messages = read(thread)
        assert [message["role"] for message in messages] == WHOLE
        assert len({message["id"] for message in messages}) == len(WHOLE)
        assert messages[-1]["content"] == "Both are open."
    titles = sql.execute("SELECT title FROM app.tickets ORDER BY title").fetchall()
    assert titles == sorted((f"Order {thread} {n}",) for thread in threads for n in (0, 1))
    runs = sql.execute("SELECT DISTINCT status FROM app.runs").fetchall()
    assert runs == [("done",)]


async def test_fifty_turns_killed_at_random_instants_each_open_their_tickets_once(
    shop: AppProcess, engine: ScriptedEngine, sql, postgres, database: str
) -> None:
    await survive(
        shop, engine, sql, lambda t: checkpoint(sql, postgres, database, t), kills=50 // TURNS
    )


@pytest.mark.long
async def test_turns_killed_at_fifty_random_instants_each_open_their_tickets_once(
    shop: AppProcess, engine: ScriptedEngine, sql, postgres, database: str
) -> None:
    await survive(shop, engine, sql, lambda t: checkpoint(sql, postgres, database, t), kills=50)


async def test_a_call_that_ran_before_its_turn_was_abandoned_keeps_its_result(
    shop: AppProcess, engine: ScriptedEngine, sql
) -> None:
    await shop.start()
    search = {"name": "search_knowledge", "arguments": '{"query": "slots"}'}
    engine.queue = [calling(ticket("Abandoned"), search)]
    sql.execute("BEGIN; LOCK TABLE app.knowledge_chunks")
    async with shop.streaming({"message": "Open one."}) as (heard, events):
        while len(heard.of("tool")) < 3:
            await anext(events)
        await shop.kill()
    sql.execute("ROLLBACK")
    await shop.start()
    await shop.chat("Never mind.", thread_id=heard.thread_id)
    _, asked, opened, searched, _ = engine.requests[-1]["messages"]
    assert opened["tool_call_id"] == asked["tool_calls"][0]["id"]
    assert opened["content"].startswith(["ticket ", " is open"][0])
    assert searched["tool_call_id"] == asked["tool_calls"][1]["id"]
    assert searched["content"].startswith("error: the call was interrupted")
    assert sql.execute("SELECT count(*) FROM app.tickets").fetchone() == (1,)


async def test_calls_that_a_bound_forbade_are_answered_in_the_next_turn(
    shop: AppProcess, engine: ScriptedEngine
) -> None:
    await shop.start()
    engine.queue = [calling(*(ticket(f"Many {n}") for n in range(9)))]
    heard = await shop.chat("Open nine.")
    assert "more than 8 tools" in heard.of("error")[0]["message"]
    await shop.chat("Hello.", thread_id=heard.thread_id)
    roles = [message["role"] for message in engine.requests[-1]["messages"]]
    assert roles == ["user", "assistant", *["tool"] * 9, "user"]


async def test_a_turn_that_was_stopped_in_its_tool_is_answered_for_in_the_next(
    shop: AppProcess, engine: ScriptedEngine, sql
) -> None:
    await shop.start()
    engine.queue = [call_tool("slots")]
    sql.execute("BEGIN; LOCK TABLE app.knowledge_chunks")
    async with shop.streaming({"message": "Slots?"}) as (heard, events):
        await anext(events)
        path = f"/threads/{heard.thread_id}/stop"
        await shop.client.post(path, headers=shop.headers())
        async for _ in events:
            pass
    sql.execute("ROLLBACK")
    assert heard.names()[-1] == "error"
    await shop.chat("Hello.", thread_id=heard.thread_id)
    roles = [message["role"] for message in engine.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "tool", "user"]


async def test_a_kill_between_repair_and_first_checkpoint_loses_no_repair(
    shop: AppProcess, engine: ScriptedEngine, sql
) -> None:
    await shop.start()
    engine.queue = [calling(*(ticket(f"Many {n}") for n in range(9)))]
    heard = await shop.chat("Open nine.")
    hold = Hold()
    engine.queue = [[hold]]
    body = {"message": "Hello.", "thread_id": heard.thread_id}
    turn = asyncio.create_task(shop.client.post("/chat", json=body, headers=shop.headers()))
    await hold.reached.wait()
    await shop.kill()
    await asyncio.gather(turn, return_exceptions=True)
    hold.release.set()
    await shop.start()
    await shop.chat("Something else.", thread_id=heard.thread_id)
    roles = [message["role"] for message in engine.requests[-1]["messages"]]
    assert roles == ["user", "assistant", *["tool"] * 9, "user", "user"]
